"""Trains the lecture's network in this project, one epoch for each line on standard input, like keras_worker.py.

All 10,000 images are for training, and the test images replace the validation split: so both are measured alike.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
from pathlib import Path

from pipeline import approaches
from pipeline.approaches import cnn
from pipeline.base.params import load_params
from pipeline.data.dataset import load
from pipeline.learning.approach import Job
from pipeline.learning.card import Epoch
from pipeline.learning.devices import choose_device, keep_freed_memory


def answer(epoch: Epoch, images: int) -> None:
    """Report an epoch, and wait for the line that starts the next one."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = images / epoch.images_per_second
    report = {"seconds": seconds, "test_accuracy": epoch.validation_accuracy, "peak_mib": peak}
    print(json.dumps(report), file=sys.__stdout__, flush=True)
    sys.stdin.readline()


def main(epochs: int) -> None:
    """Train by the `lecture` recipe."""
    sys.stdout = sys.stderr  # the reader of the reports gets only reports
    keep_freed_memory()
    dataset = load()
    splits = dataset.manifest["split"].map({"train": "train", "validation": "train", "test": "validation"})
    dataset = dataclasses.replace(dataset, manifest=dataset.manifest.assign(split=splits))
    images = len(dataset.rows("train"))
    recipe = approaches.model(load_params(), "cnn", "lecture").params
    assert isinstance(recipe, cnn.CnnParams)  # noqa: S101  # the params of this approach
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        cnn.train(recipe, Job(dataset, 0, choose_device("cpu"), checkpoint, lambda epoch: answer(epoch, images)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
