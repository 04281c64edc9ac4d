"""A small finished project: two models on synthetic images, leaderboard, champion, report, runs in MLflow."""

from __future__ import annotations

import os
import shutil
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path

import torch
import yaml

from pipeline import car_truck, leaderboard, report, results, sync
from pipeline.approach import run_approach
from pipeline.export import package
from pipeline.params import Params
from pipeline.stages import baseline, cnn
from tests.conftest import ROOT

MODELS = ("baseline", "cnn-tuned")


@contextmanager
def working_in(folder: Path):
    """Work in a folder as its owner would, whatever another test told MLflow."""
    names = ("MLFLOW_TRACKING_URI", "DVC_ROOT")
    kept = {name: os.environ.pop(name, None) for name in names}
    try:
        with chdir(folder):
            yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def small_params() -> Params:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["device"] = "cpu"
    document["cnn"]["tuned"]["training"] |= {"epochs": 3, "batch_size": 16}
    document["tracking"]["system_metrics_seconds"] = 0
    return Params.model_validate(document)


def train_baseline(params: Params) -> None:
    run_approach("baseline", "Least squares on grayscale pixels", {}, params, baseline.train, device="cpu")


def train_cnn(params: Params) -> None:
    recipe = params.cnn.tuned
    run_approach("cnn-tuned", "The lecture's CNN, tuned", recipe.model_dump(), params, partial(cnn.train, recipe))


def rank_package_and_tell(params: Params) -> None:
    """What the stages compare, package (without the Bento) and report do."""
    dataset = car_truck.load()
    found = [results.read(Path("models") / name) for name in MODELS]
    board = leaderboard.build(found, dataset)
    leaderboard.write(board, Path("reports"))
    best_first = [results.read(Path("models") / model["name"]) for model in board["models"]]
    card = package(best_first[0], dataset, params.package.tolerance, Path("models/champion"))
    Path("reports/report.html").write_text(report.build(best_first, dataset, params, board, card, None))


def fill(dataset: car_truck.Dataset) -> None:
    """Fill the current folder, which is empty."""
    torch.set_num_threads(1)
    shutil.copy2(ROOT / "params.yaml", ".")
    params = small_params()
    car_truck.save(dataset)
    train_baseline(params)
    train_cnn(params)
    rank_package_and_tell(params)
    faults = sync.sync(sync.result_folders())
    assert not faults, faults


def make(folder: Path, dataset: car_truck.Dataset) -> None:
    """Fill an empty folder."""
    with working_in(folder):
        fill(dataset)
