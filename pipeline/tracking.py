"""MLflow as a view of the results: each training is one run of one experiment, visible while it trains.

The database and the artifacts lie in the repository (`mlflow.db`, `mlruns/`), also for DVC's experiments in other
folders, so that a bare `mlflow ui` there shows everything; `MLFLOW_TRACKING_URI` is honoured where it is set.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
from filelock import FileLock
from mlflow.data import numpy_dataset
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.exceptions import MlflowException

from pipeline.car_truck import Dataset
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.params import TrackingParams
from pipeline.provenance import code_version
from pipeline.results import Result
from pipeline.training import Epoch


class Run:
    """An open run: curves go in while the model trains, the rest when its result folder is written."""

    def __init__(self, run_id: str, name: str, experiment: str) -> None:
        self.run_id, self.name, self.experiment = run_id, name, experiment

    def log_epoch(self, epoch: Epoch) -> None:
        """Add one point to each curve."""
        values = {name: value for name, value in asdict(epoch).items() if name != "epoch" and value is not None}
        mlflow.log_metrics({f"epoch/{name}": value for name, value in values.items()}, step=epoch.epoch)

    def log_result(self, result: Result) -> None:
        """Add metrics, pictures and files of the result folder, and leave run.json in it."""
        metrics = {name: value for name, value in result.metrics.model_dump().items() if value is not None}
        mlflow.log_metrics(metrics)
        for picture in sorted((result.folder / "figures").glob("*.png")):
            mlflow.log_artifact(str(picture), "figures")
        for name in ("card.json", "metrics.json", "predictions.parquet", "history.csv"):
            mlflow.log_artifact(str(result.folder / name))
        run = {"run_id": self.run_id, "run_name": self.name, "experiment": self.experiment}
        write_json(result.folder / "run.json", run)


@contextmanager
def track(name: str, title: str, recipe: dict[str, Any], dataset: Dataset, params: TrackingParams) -> Iterator[Run]:
    """Open a run called `name`; it is marked failed when the block raises, killed when it is interrupted.

    Args:
        recipe: the params of this training, nested dictionaries allowed.
    """
    experiment_id = open_experiment(params.experiment)
    _end_killed_runs(experiment_id, name)
    if params.system_metrics_seconds:
        mlflow.set_system_metrics_sampling_interval(params.system_metrics_seconds)  # type: ignore[no-untyped-call]
    tags = {"stage": name.partition("-")[0], "dataset_digest": dataset.digest, **_environment_tags()}
    with mlflow.start_run(
        experiment_id=experiment_id,
        run_name=name,
        tags=tags,
        description=title,
        log_system_metrics=params.system_metrics_seconds > 0,
    ) as active:
        mlflow.log_params({str(key): value for key, value in pd.json_normalize(recipe).iloc[0].items()})
        _log_dataset(dataset)
        yield Run(active.info.run_id, name, params.experiment)


def _end_killed_runs(experiment_id: str, name: str) -> None:
    """Mark runs of this name as killed whose process on this machine is gone: a SIGKILL lets nobody say so."""
    client = mlflow.MlflowClient()
    criterion = f"attributes.status = 'RUNNING' and attributes.run_name = '{name}' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], criterion):
        if not psutil.pid_exists(int(run.data.tags["pid"])):
            client.set_terminated(run.info.run_id, "KILLED")


def _environment_tags() -> dict[str, str]:
    code = code_version()
    tags = {"git_commit": code.commit or "none", "code_changed": str(code.changed).lower()}
    tags |= {"python": platform.python_version(), "torch": version("torch")}
    tags |= {"host": platform.node(), "pid": str(os.getpid())}
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    return tags


def _log_dataset(dataset: Dataset) -> None:
    """Name the dataset as the run's input. MLflow keeps 36 characters of a digest; a tag has the whole."""
    source = CodeDatasetSource(tags={"made_by": "dvc repro extract"})
    described = numpy_dataset.from_numpy(
        dataset.images, source, targets=dataset.labels, name="_".join(dataset.class_names), digest=dataset.digest[:36]
    )
    mlflow.log_input(described, context="training")


def open_experiment(name: str) -> str:
    """Point MLflow at its store and return the experiment's id, making both where they are missing.

    Raises:
        PipelineError: the store cannot be used; the message says what to do.
    """
    for chatty in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(elsewhere or f"sqlite:///{root / 'mlflow.db'}")
    # A fresh database is migrated on first use, and two processes at once would break each other's migration.
    with FileLock(root / ".cache" / "mlflow.lock"):
        try:
            client = mlflow.MlflowClient()
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                location = None if elsewhere else (root / "mlruns").as_uri()
                return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            raise PipelineError(f"MLflow at {elsewhere or root / 'mlflow.db'} cannot be used: {error}") from None
    if experiment.lifecycle_stage == "deleted":
        raise PipelineError(
            f"MLflow's experiment {name} was deleted: restore it (mlflow experiments restore) or rename it"
        )
    return str(experiment.experiment_id)
