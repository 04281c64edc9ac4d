"""One training under one seed, measured on the test split; what was done already is not done again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from pipeline import car_truck
from pipeline.checkpoints import checkpoint_path
from pipeline.devices import choose_device
from pipeline.evaluation import predict_logits
from pipeline.files import read_json, write_json
from pipeline.params import load_params
from pipeline.results import Trained
from pipeline.training import Job

MEASURED = Path(".cache/repeated")


@contextmanager
def utilisation_of(device: torch.device) -> Iterator[list[int]]:
    """Sample the utilisation of a GPU, in percent, twice a second while the block runs; of a CPU there is none."""
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            try:
                samples.append(torch.cuda.utilization(device))
            except Exception as error:  # the driver's own: no permission, or a share of a card, which has none
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


def train_once(name: str, recipe: dict[str, Any], seed: int, train: Callable[[Job], Trained]) -> dict[str, Any]:
    """Train by `train`, unless the same recipe, seed, data and code were measured before.

    Args:
        recipe: the params that `train` goes by.

    Returns:
        By name, test accuracy (a share), seconds of training, median images a second and, of a GPU, its mean
        utilisation (a share); of the head on frozen layers accuracy and seconds, where there is one.
    """
    params, dataset = load_params(), car_truck.load()
    device = choose_device(params.device, deterministic=params.deterministic)
    identity = {"recipe": recipe, "seed": seed, "dataset": dataset.digest, "device": device.type}
    identity |= {"deterministic": params.deterministic}
    checkpoint = checkpoint_path(f"{name.replace(' ', '-')}-{seed}", splits=dataset.split_digest, **identity)
    done = MEASURED / f"{checkpoint.stem}.json"
    if not done.exists():
        print(f"\n{name}, seed {seed}")
        with utilisation_of(device) as samples:
            trained = train(Job(dataset, seed, device, checkpoint))
        rows = dataset.rows("test")
        right = (predict_logits(trained.model, dataset.images[rows], device) > 0) == (dataset.labels[rows] > 0)
        measured: dict[str, Any] = {
            name: {
                "accuracy": float(right.mean()),
                "seconds": trained.seconds,
                "images_per_second": median(epoch.images_per_second for epoch in trained.history),
                "utilisation": mean(samples) / 100 if samples else None,
            }
        }
        if frozen := trained.frozen_accuracies:
            seconds = trained.seconds - sum(epoch.seconds for epoch in trained.history)
            measured[f"{name}, frozen"] = {"accuracy": frozen["frozen_test_accuracy"], "seconds": seconds}
        write_json(done, measured)
        checkpoint.unlink(missing_ok=True)
    found: dict[str, Any] = read_json(done)
    print(json.dumps(found), flush=True)
    return found
