"""How far chance carries each accuracy: every approach trained under several seeds -> benchmarks/seeds.md.

`make seeds`. What is done already, under the same params, data and code, is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.page import made_by, table
from pipeline import car_truck
from pipeline.devices import choose_device, keep_freed_memory
from pipeline.errors import run_as_command
from pipeline.evaluation import predict_logits
from pipeline.files import atomic, read_json, write_json
from pipeline.params import load_params
from pipeline.sweep import MODELS, training_of
from pipeline.training import Job, checkpoint_path

PAGE = Path("benchmarks/seeds.md")
DONE = Path(".cache/seeds")
ASKED = {
    "cnn-lecture": (0.890, 75), "cnn-tuned": (0.935, 150), "transfer, frozen": (0.94, 150), "transfer": (0.98, 420),
}  # fmt: skip
"""Mean test accuracy and seconds of training on two CPU cores that this project set out for."""


def train_once(model: str, seed: int) -> dict[str, Any]:
    """Train one model under one seed; test accuracies (a share) and seconds of training."""
    params, dataset = load_params(), car_truck.load()
    device = choose_device(params.device, deterministic=params.deterministic)
    section = params.transfer if model == "transfer" else getattr(params.cnn, model.removeprefix("cnn-"))
    identity = {"recipe": section.model_dump(), "seed": seed, "dataset": dataset.digest, "device": device.type}
    checkpoint = checkpoint_path(f"seeds-{model}-{seed}", splits=dataset.split_digest, **identity)
    done = DONE / f"{checkpoint.stem}.json"
    if not done.exists():
        print(f"\n{model}, seed {seed}")
        knobs, train = training_of(model, params)
        trained = train(knobs, Job(dataset, seed, device, checkpoint))
        rows = dataset.rows("test")
        right = (predict_logits(trained.model, dataset.images[rows], device) > 0) == (dataset.labels[rows] > 0)
        measured: dict[str, Any] = {model: {"accuracy": float(right.mean()), "seconds": trained.seconds}}
        if frozen := trained.frozen_accuracies:
            seconds = trained.seconds - sum(epoch.seconds for epoch in trained.history)
            measured[f"{model}, frozen"] = {"accuracy": frozen["frozen_test_accuracy"], "seconds": seconds}
        done.parent.mkdir(parents=True, exist_ok=True)
        write_json(done, measured)
        checkpoint.unlink(missing_ok=True)
    found: dict[str, Any] = read_json(done)
    print(json.dumps(found))
    return found


def page(measured: dict[str, list[dict[str, float]]], device: torch.device, command: str) -> str:
    """The Markdown page out of each model's accuracies and seconds."""
    rows = []
    for model, runs in measured.items():
        accuracies = np.array([run["accuracy"] for run in runs])
        seconds = float(np.median([run["seconds"] for run in runs]))
        asked_accuracy, asked_seconds = ASKED[model]
        spread = f" ± {accuracies.std(ddof=1):.2%}" if len(runs) > 1 else ""
        reached = [accuracies.mean() >= asked_accuracy, seconds <= asked_seconds or device.type != "cpu"]
        rows.append(
            [model, f"{accuracies.mean():.2%}{spread}", ", ".join(f"{accuracy:.2%}" for accuracy in accuracies),
             f"{seconds:.0f} s", f"≥ {asked_accuracy:.1%}, ≤ {asked_seconds} s",
             " and ".join("yes" if one else "no" for one in reached)]
        )  # fmt: skip
    header = ["model", "test accuracy, mean ± standard deviation", "each seed", "training, median", "asked", "reached"]
    return (
        "# Accuracy over seeds\n\n"
        "Seeds change the first weights, the order of the images, the augmentation and dropout; the split stays. "
        "2,000 test images: beside the spread over seeds, another draw of test images would move 98 % by ±0.6 points, "
        "90 % by ±1.3 (95 % intervals).\n\n"
        f"{table(header, rows)}\n"
        + ("" if device.type == "cuda" else "Transfer learning on a GPU: not measured, none was at hand.\n\n")
        + made_by(command, device, "torch", "timm", "numpy")
    )


def main() -> None:
    """Train every model under every seed, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 (%(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    keep_freed_memory()
    measured: dict[str, list[dict[str, float]]] = {}
    for model in arguments.models:
        for seed in range(arguments.seeds):
            for name, run in train_once(model, seed).items():
                measured.setdefault(name, []).append(run)
    with atomic(PAGE) as temporary:
        temporary.write_text(page(measured, choose_device(load_params().device), "make seeds"))
    print(f"\n{PAGE.read_text()}")


if __name__ == "__main__":
    run_as_command(main)
