"""Tune the knobs of one training by Optuna on validation accuracy: `make sweep`, or this module with its options.

Processes and machines with the same storage share one study. Every trial is a child run in MLflow. The first trial uses
params.yaml unchanged. The sweep never uses the test images.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import optuna
import yaml
from filelock import FileLock
from mlflow.entities import Metric, Param
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline import approaches
from pipeline.base.errors import NotANumber, PipelineError, run_as_command
from pipeline.base.params import Params, load_params
from pipeline.data.dataset import Dataset, load
from pipeline.learning.approach import Job, Model
from pipeline.learning.card import Epoch
from pipeline.learning.checkpoints import CHECKPOINTS
from pipeline.learning.devices import choose_device, keep_freed_memory
from pipeline.learning.key import training_key
from pipeline.learning.params import TrainingParams
from pipeline.results.metrics import wilson
from pipeline.tracking.connection import connect, end_killed_runs, first_line, process_tags
from pipeline.tracking.live import curve_points
from pipeline.tracking.store import repository

STORAGE = "sqlite:///.cache/sweeps.db"


def suggest(trial: Trial, start: TrainingParams) -> TrainingParams:
    """The knobs of one trial: the learning rate is drawn around that of params.yaml, the others from fixed ranges."""
    rate = start.learning_rate
    knobs: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", rate / 4, rate * 4, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.2),
        "shift": trial.suggest_int("shift", 0, 5),
        "cutout": trial.suggest_int("cutout", 0, 12),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }
    return start.model_copy(update=knobs)


def tunable(params: Params) -> dict[str, Model]:
    """The models that use the training loop, by name."""
    return {name: model for name, model in approaches.models(params).items() if model.training is not None}


def run_trial(trial: Trial, model: Model, params: Params, dataset: Dataset, parent: str) -> float:
    """Train once, as a child run of `parent`. Returns the validation accuracy of the last epoch.

    Raises:
        optuna.TrialPruned: the trial is behind the median of earlier trials, or a number in it became NaN or infinite.
    """
    assert model.training is not None  # noqa: S101  # `tunable` models have one
    knobs = suggest(trial, model.training)
    checkpoint = CHECKPOINTS / f"{trial.study.study_name}-{trial.number}.pt"
    child = ChildRun(parent, f"{model.name} trial {trial.number}", trial.number, knobs)

    def report(epoch: Epoch) -> None:
        child.log(curve_points(epoch), epoch.epoch)
        trial.report(epoch.validation_accuracy or 0.0, epoch.epoch)
        if epoch.epoch < knobs.epochs and trial.should_prune():
            raise optuna.TrialPruned

    status = "FAILED"
    try:
        device = choose_device(params.device, deterministic=params.deterministic)
        job = Job(dataset, params.seed, device, checkpoint, report)
        trained = model.approach.train(model.params.model_copy(update={"training": knobs}), job)
        accuracy = trained.history[-1].validation_accuracy or 0.0
        child.log({"validation_accuracy": accuracy})
        status = "FINISHED"
    except optuna.TrialPruned:
        child.attempt(lambda client, run_id: client.set_tag(run_id, "pruned", "true"))
        status = "FINISHED"
        raise
    except NotANumber as error:  # a learning rate that makes the loss NaN is a result too
        print(f"trial {trial.number}: {error}")
        raise optuna.TrialPruned from error
    finally:
        child.attempt(lambda client, run_id: client.set_terminated(run_id, status))
        checkpoint.unlink(missing_ok=True)
    return accuracy


class ChildRun:
    """The MLflow run of one trial. If MLflow fails, the trial goes on without it."""

    def __init__(self, parent: str, name: str, number: int, knobs: TrainingParams) -> None:
        self.run_id, self.connected = "", True
        tags = {"mlflow.parentRunId": parent, "optuna_trial": str(number), **process_tags()}
        params = [Param(key, str(value)) for key, value in knobs.model_dump().items()]

        def start(client: mlflow.MlflowClient, _: str) -> None:
            experiment = client.get_run(parent).info.experiment_id
            self.run_id = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
            client.log_batch(self.run_id, params=params)

        self.attempt(start)

    def attempt(self, action: Callable[[mlflow.MlflowClient, str], object]) -> None:
        """Do something in MLflow, unless MLflow failed before. A failure prints a warning."""
        if not self.connected:
            return
        try:
            action(mlflow.MlflowClient(), self.run_id)
        except Exception as error:  # any fault of any store or server
            self.connected = False
            print(f"warning: MLflow: {first_line(error)}; the trial goes on without it", flush=True)

    def log(self, values: dict[str, float], step: int = 0) -> None:
        """Add metrics to the run."""
        timestamp = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, timestamp, step) for name, value in values.items()]
        self.attempt(lambda client, run_id: client.log_batch(run_id, metrics=metrics))


def open_study(model: Model, storage: str, params: Params, dataset: Dataset) -> tuple[Study, str]:
    """Open or create the study of this model and its `training_key`. Returns it and the id of its MLflow parent run.

    Raises:
        PipelineError: the storage cannot be used.
    """
    assert model.training is not None  # noqa: S101  # `tunable` models have one
    Path(".cache").mkdir(exist_ok=True)
    key = training_key(model, params, dataset, choose_device(params.device))
    client, experiment = connect(f"{params.tracking.experiment}-sweeps")
    end_killed_runs(client, experiment)
    with FileLock(repository() / ".cache" / "sweep.lock"):  # of two sweeps, only one makes tables, study and parent
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=f"sweep-{model.name}-{key[:16]}",  # other params, data, code or precision: another study
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(multivariate=False),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=model.training.epochs // 3),
            )
        except (ImportError, ValueError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise PipelineError(f"--storage {storage} cannot be used: {first_line(error)}") from None
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(model.training.model_dump(), skip_if_exists=True)  # `suggest` uses some of these
        name = f"attributes.run_name = '{study.study_name}'"
        parents = client.search_runs([experiment], name)  # each MLflow has its own parent run
        parent = parents[0] if parents else client.create_run(experiment, run_name=study.study_name)
    return study, parent.info.run_id


def summary(study: Study, model: Model, images: int) -> str:
    """The best knobs so far, the interval of their accuracy, and the lines for params.yaml."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if not finished:
        return "no trial was finished"
    best, first = study.best_trial, finished[0]
    lines: dict[str, Any] = {
        name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in best.params.items()
    }
    for key in reversed([*model.section.split("."), "training"]):
        lines = {key: lines}
    low, high = wilson(round(_accuracy(best) * images), images)
    pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
    return (
        f"{len(finished)} trials finished, {pruned} pruned. "
        f"Best: trial {best.number}, validation {_accuracy(best):.2%} "
        f"({low:.1%} to {high:.1%} at n = {images:,}); the first, trial {first.number}: {_accuracy(first):.2%}.\n"
        f"A difference inside the interval is noise: try other seeds before you keep the new values.\n\n"
        f"{yaml.safe_dump(lines, sort_keys=False)}"
    )


def _accuracy(trial: FrozenTrial) -> float:
    return float(trial.value or 0.0)


def main() -> None:
    """Run more trials of a study and print the best trial so far."""
    params, dataset = load_params(), load()
    models = tunable(params)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", nargs="?", choices=list(models), default="cnn-tuned", help="the model to tune (%(default)s)"
    )
    parser.add_argument("--trials", type=int, default=6, help="how many trials this process runs (%(default)s)")
    parser.add_argument("--storage", default=STORAGE, help="the URL of the Optuna storage (%(default)s)")
    arguments = parser.parse_args()
    model = models[arguments.model]
    if not len(dataset.rows("validation")):
        raise PipelineError("data.validation_share is 0: a sweep chooses on validation images")
    keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    study, parent = open_study(model, arguments.storage, params, dataset)
    try:
        study.optimize(
            lambda trial: run_trial(trial, model, params, dataset, parent),
            n_trials=arguments.trials,
            callbacks=[lambda _, trial: print(f"trial {trial.number}: {trial.state.name.lower()}, {trial.value}\n")],
        )
    finally:
        with suppress(Exception):  # a fault here loses nothing: Optuna keeps the study
            mlflow.MlflowClient().set_terminated(parent)
    print(summary(study, model, len(dataset.rows("validation"))))


if __name__ == "__main__":
    run_as_command(main)
