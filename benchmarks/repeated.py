"""One training under one seed, measured on the test split; what was done already is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import car_truck
from pipeline.devices import choose_device
from pipeline.evaluation import predict_logits
from pipeline.files import read_json, write_json
from pipeline.params import load_params
from pipeline.results import Trained
from pipeline.training import Job, checkpoint_path

DONE = Path(".cache/repeated")


def train_once(name: str, recipe: dict[str, Any], seed: int, train: Callable[[Job], Trained]) -> dict[str, Any]:
    """Train by `train`, unless the same recipe, seed, data and code were measured before.

    Args:
        recipe: the params that `train` goes by.

    Returns:
        By name, test accuracy (a share) and seconds of training; of the head on frozen layers too, where there is one.
    """
    params, dataset = load_params(), car_truck.load()
    device = choose_device(params.device, deterministic=params.deterministic)
    identity = {"recipe": recipe, "seed": seed, "dataset": dataset.digest, "device": device.type}
    checkpoint = checkpoint_path(f"{name.replace(' ', '-')}-{seed}", splits=dataset.split_digest, **identity)
    done = DONE / f"{checkpoint.stem}.json"
    if not done.exists():
        print(f"\n{name}, seed {seed}")
        trained = train(Job(dataset, seed, device, checkpoint))
        rows = dataset.rows("test")
        right = (predict_logits(trained.model, dataset.images[rows], device) > 0) == (dataset.labels[rows] > 0)
        measured: dict[str, Any] = {name: {"accuracy": float(right.mean()), "seconds": trained.seconds}}
        if frozen := trained.frozen_accuracies:
            seconds = trained.seconds - sum(epoch.seconds for epoch in trained.history)
            measured[f"{name}, frozen"] = {"accuracy": frozen["frozen_test_accuracy"], "seconds": seconds}
        write_json(done, measured)
        checkpoint.unlink(missing_ok=True)
    found: dict[str, Any] = read_json(done)
    print(json.dumps(found), flush=True)
    return found
