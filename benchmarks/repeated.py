"""Trains once under one seed and measures on the test split; does not repeat a measurement of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from numpy.typing import NDArray

from benchmarks.page import made_on
from pipeline.base.files import read_json, write_json
from pipeline.base.params import load_params
from pipeline.data.dataset import Dataset, load
from pipeline.learning.approach import Job, Model
from pipeline.learning.checkpoints import checkpoint_path
from pipeline.learning.devices import choose_device, describe_device
from pipeline.learning.key import precision_of, training_key
from pipeline.learning.predict import predict_logits

MEASURED = Path(".cache/repeated")


@contextmanager
def utilisation_of(device: torch.device) -> Iterator[list[int]]:
    """Sample a GPU's utilisation, in percent, twice a second while the block runs; a CPU gives no samples."""
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            try:
                samples.append(torch.cuda.utilization(device))
            except Exception as error:  # the driver's: no permission, or only a share of a card
                print(f"warning: the GPU does not tell its utilisation: {error}", flush=True)
                return

    thread = threading.Thread(target=sample, daemon=True)
    if device.type == "cuda":
        thread.start()
    try:
        yield samples
    finally:
        ended.set()
        if device.type == "cuda":
            thread.join()


def train_once(model: Model, seed: int, name: str = "") -> dict[str, Any]:
    """Train a model under a seed, unless this machine has a measurement under the same `training_key`.

    Args:
        name: the name of the measurement; by default, that of the model.

    Returns:
        By name: test accuracy (a share), seconds of training, median images a second, mean utilisation of a GPU (a
        share), and where and when this was measured. A head on frozen layers has an entry of its own.
    """
    name = name or model.name
    dataset, params = load(), load_params().model_copy(update={"seed": seed})
    device = choose_device(model.approach.device or params.device, deterministic=params.deterministic)
    key = training_key(model, params, dataset, device)
    checkpoint = checkpoint_path(f"{name.replace(' ', '-')}-{seed}", key)
    path, here = MEASURED / f"{checkpoint.stem}.json", describe_device(device)
    if not _was_measured(path, key, here):
        print(f"\n{name}, seed {seed}")
        with utilisation_of(device) as samples:
            trained = model.approach.train(model.params, Job(dataset, seed, device, checkpoint))
        rows = dataset.rows("test")
        figures: dict[str, Any] = {
            name: {
                "accuracy": _accuracy(predict_logits(trained.model, dataset.images[rows], device), dataset, rows),
                "seconds": trained.seconds,
                "images_per_second": median(epoch.images_per_second for epoch in trained.history),
                "utilisation": mean(samples) / 100 if samples else None,
            }
        }
        if "test" in trained.frozen_logits:
            seconds = trained.seconds - sum(epoch.seconds for epoch in trained.history)
            accuracy = _accuracy(trained.frozen_logits["test"], dataset, rows)
            figures[f"{name}, frozen"] = {"accuracy": accuracy, "seconds": seconds}
        origin = made_on(device, precision_of(model, device))
        write_json(path, {"key": key, "hardware": here, "origin": origin, "figures": figures})
        checkpoint.unlink(missing_ok=True)
    document = read_json(path, made_by="make seeds")
    print(f"{document['origin']}: {json.dumps(document['figures'])}", flush=True)
    return {key: values | {"origin": document["origin"]} for key, values in document["figures"].items()}


def _accuracy(logits: NDArray[Any], dataset: Dataset, rows: NDArray[Any]) -> float:
    return float(((logits > 0) == (dataset.labels[rows] > 0)).mean())


def _was_measured(path: Path, key: str, hardware: str) -> bool:
    """Whether a file holds a measurement of this training on this machine; any other file is measured anew."""
    try:
        document = json.loads(path.read_text())
        return bool(document["key"] == key and document["hardware"] == hardware and document["figures"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
