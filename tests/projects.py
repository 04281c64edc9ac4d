"""A small finished project: two models on synthetic images, leaderboard, champion, report, runs in MLflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from pipeline import approaches
from pipeline.base.params import Params, approach_names
from pipeline.data.dataset import Dataset, save
from pipeline.learning import learn as learning
from pipeline.learning.approach import Job, Trained
from pipeline.packaging.export import package
from pipeline.report import report
from pipeline.results import leaderboard
from pipeline.results.result import Result, evaluated, read
from pipeline.stages import draw, evaluate
from pipeline.tracking import sync
from pipeline.tracking.live import watch_by
from tests.conftest import ROOT

MODELS = ("baseline", "cnn-tuned")


@contextmanager
def working_in(folder: Path):
    """Work in a folder, without the settings of MLflow and DVC that another test left."""
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
    return Params.of(document, approach_names())


def train_baseline(params: Params) -> None:
    learning.learn(approaches.model(params, "baseline"), params, watch_by(params.tracking))


def train_cnn(params: Params, train: Callable[[object, Job], Trained] | None = None) -> None:
    """Train the tuned CNN; `train` replaces its training function."""
    model = approaches.model(params, "cnn", "tuned")
    if train is not None:
        model = replace(model, approach=replace(model.approach, train=train))
    learning.learn(model, params, watch_by(params.tracking))


def retrain_cnn(params: Params, train: Callable[[object, Job], Trained] | None = None) -> None:
    """Train the tuned CNN again, evaluate and draw."""
    train_cnn(params, train)
    look_at_results()


def write_result(network, dataset: Dataset, name: str = "some", approach: str = "cnn") -> Result:
    """Write the result folder of an untrained network under models/, as a stage does."""
    cpu = torch.device("cpu")
    beginning = learning.Beginning(name, "Some model", Path("models") / name, {}, dataset, cpu, "a CPU", "float32")
    learning.write(beginning, approach, Trained(network, 1.0), seed=0)
    record = {"run_id": "abc", "run_name": name, "experiment": "e", "started": 0, "tags": {}}
    learning.write_json(beginning.folder / "run.json", record)
    return read(beginning.folder)


def look_at_results() -> None:
    """What the stages `evaluate` and `draw` do."""
    folders = [f"models/{name}" for name in MODELS]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": {"deps": folders}}}))
    evaluate.main()
    draw.main()


def rank_package_and_report(params: Params, dataset: Dataset) -> None:
    """What the stages `compare`, `package` (without the Bento) and `report` do."""
    results = {result.name: result for result in evaluated()}
    board = leaderboard.build(list(results.values()), dataset)
    leaderboard.write(board, Path("reports"))
    best_first = [results[model["name"]] for model in board["models"]]
    networks = {result.name: approaches.rebuild(result.card, result.folder) for result in best_first}
    best = best_first[0]
    card = package(best, networks[best.name], dataset, params.package.tolerance, Path("models/champion"))
    Path("reports/report.html").write_text(report.build(best_first, networks, dataset, params, board, card, None))


def fill(dataset: Dataset) -> None:
    """Make the project in the current folder, which must be empty."""
    torch.set_num_threads(1)
    shutil.copy2(ROOT / "params.yaml", ".")
    params = small_params()
    save(dataset)
    train_baseline(params)
    train_cnn(params)
    look_at_results()
    rank_package_and_report(params, dataset)
    faults = sync.sync(sync.result_folders())
    assert not faults, faults


def make(folder: Path, dataset: Dataset) -> None:
    """Make the project in an empty folder."""
    with working_in(folder):
        fill(dataset)
