"""A training as a live run in MLflow: params, dataset, curves. `sync` adds the rest at the end.

If MLflow fails, one warning is printed. The training goes on without MLflow, and `make sync` makes the run later.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset as MlflowDataset
from mlflow.data.meta_dataset import MetaDataset
from mlflow.types import Schema, TensorSpec

from pipeline.base.errors import PipelineError
from pipeline.base.files import digest_of, write_json
from pipeline.base.params import TrackingParams
from pipeline.base.provenance import code_version
from pipeline.learning.card import RUN, Epoch
from pipeline.learning.learn import Beginning, Watch
from pipeline.results.result import RunRecord, result_digest
from pipeline.tracking import chart_view
from pipeline.tracking.connection import COLOR_TAG, connect, end_killed_runs, first_line, next_color, process_tags
from pipeline.tracking.store import tracking_uri


class Run:
    """An open run, which gets the points of its curves while the model trains."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.connected = record, True

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something in MLflow, unless MLflow failed before. A failure prints a warning."""
        if not self.connected:
            return
        try:
            action()
        except Exception as error:  # any fault of any store or server
            self.connected = False
            where = "" if isinstance(error, PipelineError) else f"MLflow at {tracking_uri()}: "
            print(
                f"warning: {where}{first_line(error)}\n"
                "warning: the training goes on without it; `make sync` adds its run later",
                flush=True,
            )

    def log_epoch(self, epoch: Epoch) -> None:
        """Add one point to each curve."""
        self.attempt(lambda: mlflow.log_metrics(curve_points(epoch), step=epoch.epoch))


def watch_by(params: TrackingParams) -> Watch:
    """The `Watch` that shows a training in MLflow, with these params."""

    @contextmanager
    def watch(beginning: Beginning) -> Iterator[Callable[[Epoch], None]]:
        with track(beginning, params) as run:
            yield run.log_epoch

    return watch


@contextmanager
def track(beginning: Beginning, params: TrackingParams) -> Iterator[Run]:
    """Open a run, and write run.json into the result folder at the end.

    The run is marked as failed if the block raises, and as killed if the block is interrupted.
    """
    tags = {"stage": beginning.name.partition("-")[0], "dataset_digest": beginning.dataset.digest}
    tags |= {"params_digest": digest_of(beginning.recipe), "device": beginning.hardware}
    tags |= {"precision": beginning.precision, **_environment_tags()}
    experiment_name = tags.get("dvc_experiment")
    run_name = f"{beginning.name} ({experiment_name})" if experiment_name else beginning.name
    run = Run(RunRecord(run_name=run_name, experiment=params.experiment, started=_milliseconds(), tags=tags))
    status = "FAILED"
    try:
        run.attempt(lambda: _start(run, beginning, params))
        yield run
        ended = {"ended": _milliseconds(), "result_digest": result_digest(beginning.folder)}
        write_json(beginning.folder / RUN, run.record.model_copy(update=ended).model_dump())
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # If MLflow failed in the middle, its run stays incomplete, and `make sync` replaces it by a complete one.
        run.attempt(lambda: mlflow.end_run(status))
        if not run.connected:  # MLflow itself would mark the run as finished when the process ends
            with suppress(Exception):
                mlflow.end_run("FAILED")


def _start(run: Run, beginning: Beginning, params: TrackingParams) -> None:
    """Open the run in MLflow, with everything that is known before the first epoch."""
    client, experiment_id = connect(params.experiment)
    end_killed_runs(client, experiment_id)
    digest, class_names = beginning.dataset.digest, beginning.dataset.class_names
    chart_view.offer(client, experiment_id, class_names, digest)
    if params.system_metrics_seconds:
        mlflow.set_system_metrics_sampling_interval(params.system_metrics_seconds)  # type: ignore[no-untyped-call]
    tags = run.record.tags | {COLOR_TAG: next_color(client, experiment_id)}
    active = mlflow.start_run(
        experiment_id=experiment_id,
        run_name=run.record.run_name,
        tags=tags,
        description=beginning.title,
        log_system_metrics=params.system_metrics_seconds > 0,
    )
    run.record = run.record.model_copy(update={"run_id": active.info.run_id, "tags": tags})
    mlflow.log_params(flat(beginning.recipe))
    mlflow.log_input(describe_dataset(digest, class_names), context="training")


def _milliseconds() -> int:
    """The time in milliseconds since 1970, as MLflow counts it."""
    return time.time_ns() // 1_000_000


def _environment_tags() -> dict[str, str]:
    code = code_version()
    tags = {"git_commit": code.commit or "none", "code_changed": str(code.changed).lower()}
    tags |= {"python": platform.python_version()}
    tags |= {package: version(package) for package in ("torch", "dvc", "mlflow")}
    tags |= process_tags()
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    return tags


def describe_dataset(digest: str, class_names: list[str]) -> MlflowDataset:
    """The dataset as a run's input. MLflow keeps 36 characters of a digest; a tag of the run has the whole digest."""
    schema = Schema(
        [TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3), "images"), TensorSpec(np.dtype("int64"), (-1,), "labels")]
    )
    source = CodeDatasetSource(tags={"made_by": "dvc repro extract"})
    name = "_".join(class_names)
    return MetaDataset(source, name, digest[:36], schema)  # type: ignore[abstract]  # not at run time


def curve_points(epoch: Epoch) -> dict[str, float]:
    """The values of one epoch, by the names of their curves."""
    values = {name: value for name, value in asdict(epoch).items() if name != "epoch" and value is not None}
    return {f"epoch/{name}": value for name, value in values.items()}


def flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Nested params under dotted names, as MLflow takes them."""
    return {str(key): value for key, value in pd.json_normalize(recipe).iloc[0].items()}
