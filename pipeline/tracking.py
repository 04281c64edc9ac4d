"""MLflow as a view of the results: each training is one run of one experiment, visible while it trains.

Whatever MLflow cannot take is said once and left to `make sync`, which makes a run out of a result folder by the
functions of this module: training never depends on MLflow.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import torch
from filelock import FileLock
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset as MlflowDataset
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.types import Schema, TensorSpec
from PIL import Image

from pipeline import chart_view, charts, known_facts
from pipeline.devices import describe_device
from pipeline.errors import PipelineError
from pipeline.files import digest_of, write_json
from pipeline.params import TrackingParams
from pipeline.provenance import code_version
from pipeline.results import Result, RunRecord, result_digest
from pipeline.store import FOLDER_TAG, follow_the_folder, is_local, pictures, repository, run_files, tracking_uri
from pipeline.templating import render
from pipeline.training import Epoch

COLOR_TAG = "mlflow.runColor"
RUN_COLORS = (*charts.SERIES, "#882255", "#777777")
"""Of the runs in MLflow's charts, in turn: left to itself it draws one by lot for each, and two may be alike."""

DESCRIPTION = """Three representations of images, as in the lecture: raw pixels (`baseline`), learned filters (`cnn-*`),
transferred features (`transfer`). *Runs*, then the chart view, shows accuracies and pictures side by side."""


def connect(experiment: str) -> tuple[mlflow.MlflowClient, str]:
    """Point MLflow at its store; a client, and the experiment's id, made where it is missing.

    Raises:
        PipelineError: the store cannot be used; the message says what to do.
    """
    for chatty in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")):
        os.environ.setdefault(name, value)  # a server that is down is not waited for, for minutes, at each call
    follow_the_folder()
    root = repository()
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    lock = root / ".cache" / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    # A fresh database is migrated on first use, and two processes at once would break each other's migration.
    with FileLock(lock):
        try:
            client = mlflow.MlflowClient()
            found = client.get_experiment_by_name(experiment)
            if found is None:
                tags = {"mlflow.note.content": DESCRIPTION} | ({FOLDER_TAG: str(root)} if is_local() else {})
                location = str(root / "mlruns") if is_local() else None
                return client, client.create_experiment(experiment, location, tags)
        except Exception as error:  # SQLAlchemy's, requests' and MLflow's own
            raise PipelineError(f"MLflow at {uri} cannot be used: {first_line(error)}{_advice(error, uri)}") from None
    if found.lifecycle_stage == "deleted":
        raise PipelineError(
            f"MLflow's experiment {experiment} was deleted: `mlflow experiments restore -x {found.experiment_id}` "
            "brings it back; trainings to come may go into another (tracking.experiment in params.yaml)"
        )
    return client, str(found.experiment_id)


def first_line(error: BaseException) -> str:
    """What went wrong in one line: of a failed request the network's own word, not that of the layers above it."""
    if isinstance(error, PipelineError):
        return str(error)
    root = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    chosen = root if isinstance(root, OSError) else error
    line = next((line for line in str(chosen).splitlines() if line.strip()), type(chosen).__name__)
    return line.split(". ")[0][:300]


def _advice(error: Exception, uri: str) -> str:
    """What to do about the two faults that a local database comes to."""
    if "schema" in str(error):
        return f"; keep a copy of it, then `mlflow db upgrade {uri}`"
    if "malformed" in str(error) or "not a database" in str(error):
        return "; move it away, and `make sync` makes another from the results"
    return ""


class Run:
    """An open run: curves go in while the model trains, the rest when its result folder is written."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.connected = record, True

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something in MLflow, unless that failed before."""
        if not self.connected:
            return
        try:
            action()
        except Exception as error:  # any fault of any store or server
            self.connected = False
            where = "" if isinstance(error, PipelineError) else f"MLflow at {tracking_uri()}: "
            print(
                f"warning: {where}{first_line(error)}\n"
                "warning: the training goes on without it; `make sync` brings its run in later",
                flush=True,
            )

    def log_epoch(self, epoch: Epoch) -> None:
        """Add one point to each curve."""
        self.attempt(lambda: mlflow.log_metrics(curve_points(epoch), step=epoch.epoch))

    def log_result(self, result: Result) -> None:
        """Add metrics, pictures and files of the result folder, and leave run.json in it."""
        ended = {"ended": _now(), "result_digest": result_digest(result.folder)}
        self.record = self.record.model_copy(update=ended)
        run_id = self.record.run_id
        if run_id is not None:
            self.attempt(lambda: log_result(mlflow.MlflowClient(), run_id, result, self.record))
        write_json(result.folder / "run.json", self.record.model_dump())


@contextmanager
def track(
    name: str,
    title: str,
    recipe: dict[str, Any],
    dataset_digest: str,
    class_names: list[str],
    device: torch.device,
    params: TrackingParams,
) -> Iterator[Run]:
    """Open a run called `name`; it is marked failed when the block raises, killed when it is interrupted.

    Args:
        title: the approach in a few words, the run's description until its result is there.
        recipe: the params of this training, nested dictionaries allowed.
    """
    tags = {"stage": name.partition("-")[0], "dataset_digest": dataset_digest}
    tags |= {"params_digest": digest_of(recipe), "device": describe_device(device), **_environment_tags()}
    experiment_name = tags.get("dvc_experiment")
    run_name = f"{name} ({experiment_name})" if experiment_name else name
    record = RunRecord(run_name=run_name, experiment=params.experiment, started=_now(), tags=tags)
    run = Run(record)

    def start() -> None:
        client, experiment_id = connect(params.experiment)
        end_killed_runs(client, experiment_id)
        chart_view.offer(client, experiment_id, class_names, dataset_digest)
        if params.system_metrics_seconds:
            mlflow.set_system_metrics_sampling_interval(params.system_metrics_seconds)  # type: ignore[no-untyped-call]
        colored = tags | {COLOR_TAG: next_color(client, experiment_id)}
        active = mlflow.start_run(
            experiment_id=experiment_id,
            run_name=run_name,
            tags=colored,
            description=title,
            log_system_metrics=params.system_metrics_seconds > 0,
        )
        run.record = record.model_copy(update={"run_id": active.info.run_id, "tags": colored})
        mlflow.log_params(flat(recipe))
        mlflow.log_input(describe_dataset(dataset_digest, class_names), context="training")

    status = "FAILED"
    try:
        run.attempt(start)
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # Where MLflow failed in the middle, its run stays half-written: `make sync` puts a whole one in its place.
        run.attempt(lambda: mlflow.end_run(status))
        if not run.connected:  # left to itself, MLflow would call it finished when the process ends
            with suppress(Exception):
                mlflow.end_run("FAILED")


def log_result(client: mlflow.MlflowClient, run_id: str, result: Result, record: RunRecord) -> None:
    """Put all of a result folder but its curves into a run; the tag `result_digest`, written last, says it is whole."""
    values = {name: value for name, value in result.metrics.model_dump().items() if value is not None}
    client.log_batch(run_id, metrics=[Metric(name, value, record.ended, 0) for name, value in values.items()])
    client.set_tag(run_id, "mlflow.note.content", describe(result))
    log_files(client, run_id, result.folder, run_files(result.folder))
    client.set_tag(run_id, "result_digest", record.result_digest)


def log_files(client: mlflow.MlflowClient, run_id: str, folder: Path, names: set[str]) -> None:
    """Put files of a result folder into a run: those `names` of `store.run_files`."""
    for name in sorted(names):
        if not name.startswith("images/"):
            client.log_artifact(run_id, str(folder / name), str(Path(name).parent) if "/" in name else None)
    for (key, step), picture in pictures(folder).items():
        if f"images/{key}+step+{step}" in names:
            with Image.open(picture) as image:
                client.log_image(run_id, np.asarray(image.convert("RGB")), key=key, step=step)


def end_killed_runs(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark runs as killed whose process on this machine is gone: a SIGKILL lets nobody say so."""
    criterion = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], criterion):
        try:
            process = psutil.Process(int(run.data.tags["pid"]))
            alive = process.create_time() * 1000 <= run.info.start_time  # or another process has its number now
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            client.set_terminated(run.info.run_id, "KILLED")


def next_color(client: mlflow.MlflowClient, experiment_id: str) -> str:
    """The first of `RUN_COLORS` that none of the newest runs has."""
    newest = client.search_runs([experiment_id], max_results=len(RUN_COLORS) - 1, order_by=["start_time DESC"])
    taken = {run.data.tags.get(COLOR_TAG) for run in newest}
    return next(color for color in RUN_COLORS if color not in taken)


def describe(result: Result) -> str:
    """A run's description in Markdown: its line of the leaderboard, and the lecture's figure where there is one."""
    lecture = known_facts.lecture_of(result.card.name, result.card.classes)
    curves = len(result.history) > 0
    return render("run.md", card=result.card, metrics=result.metrics, lecture=lecture, curves=curves)


def describe_dataset(digest: str, class_names: list[str]) -> MlflowDataset:
    """The dataset as a run's input. MLflow keeps 36 characters of a digest; a tag has the whole."""
    schema = Schema(
        [TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3), "images"), TensorSpec(np.dtype("int64"), (-1,), "labels")]
    )
    source = CodeDatasetSource(tags={"made_by": "dvc repro extract"})
    name = "_".join(class_names)
    return MetaDataset(source, name, digest[:36], schema)  # type: ignore[abstract]  # not at run time


def curve_points(epoch: Epoch) -> dict[str, float]:
    """The values of one epoch by the names of their curves."""
    values = {name: value for name, value in asdict(epoch).items() if name != "epoch" and value is not None}
    return {f"epoch/{name}": value for name, value in values.items()}


def flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Nested params under dotted names, as MLflow takes them."""
    return {str(key): value for key, value in pd.json_normalize(recipe).iloc[0].items()}


def _now() -> int:
    """The time in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000


def process_tags() -> dict[str, str]:
    """By what `end_killed_runs` finds a process again."""
    return {"host": platform.node(), "pid": str(os.getpid())}


def _environment_tags() -> dict[str, str]:
    code = code_version()
    tags = {"git_commit": code.commit or "none", "code_changed": str(code.changed).lower()}
    tags |= {"python": platform.python_version()}
    tags |= {package: version(package) for package in ("torch", "dvc", "mlflow")}
    tags |= process_tags()
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    return tags
