"""MLflow's client, ready to use, and what every run is marked with."""

from __future__ import annotations

import logging
import os
import platform

import mlflow
import psutil
from filelock import FileLock

from pipeline.base.errors import PipelineError
from pipeline.pictures.palette import SERIES
from pipeline.tracking.store import FOLDER_TAG, follow_the_folder, is_local, repository, tracking_uri

COLOR_TAG = "mlflow.runColor"
RUN_COLORS = (*SERIES, "#882255", "#777777")
"""The colours of runs in MLflow's charts, in turn: MLflow itself draws one by lot, and two runs may look alike."""

DESCRIPTION = """Three representations of images, as in the lecture: raw pixels (`baseline`), learned filters (`cnn-*`),
transferred features (`transfer`). *Runs*, then the chart view, shows accuracies and pictures side by side."""


def connect(experiment: str) -> tuple[mlflow.MlflowClient, str]:
    """Point MLflow at its store and make the experiment where it is missing; returns a client and the experiment's id.

    Raises:
        PipelineError: the store cannot be used; the message says what to do.
    """
    for chatty in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")):
        os.environ.setdefault(name, value)  # a server that is down must not be waited for, for minutes, at each call
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
            known = client.get_experiment_by_name(experiment)
            if known is None:
                tags = {"mlflow.note.content": DESCRIPTION} | ({FOLDER_TAG: str(root)} if is_local() else {})
                location = str(root / "mlruns") if is_local() else None
                return client, client.create_experiment(experiment, location, tags)
        except Exception as error:  # SQLAlchemy's, requests' and MLflow's own
            raise PipelineError(f"MLflow at {uri} cannot be used: {first_line(error)}{_advice(error, uri)}") from None
    if known.lifecycle_stage == "deleted":
        raise PipelineError(
            f"MLflow's experiment {experiment} was deleted: `mlflow experiments restore -x {known.experiment_id}` "
            "brings it back; trainings to come may go into another (tracking.experiment in params.yaml)"
        )
    if is_local() and (made_in := known.tags.get(FOLDER_TAG, str(root))) != str(root):
        raise PipelineError(
            f"mlflow.db was made in {made_in}. Its tables have a version that was never tried, so its paths are not "
            "rewritten: move the folder back, or type `mv mlflow.db mlflow-moved.db && make sync`, which makes another "
            "one from the results"
        )
    return client, str(known.experiment_id)


def first_line(error: BaseException) -> str:
    """What went wrong in one line; for a failed request the network's own words, not those of the layers above it."""
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


def end_killed_runs(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark the runs as killed whose process on this machine has ended: after a SIGKILL nobody else can."""
    criterion = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], criterion):
        try:
            process = psutil.Process(int(run.data.tags["pid"]))
            alive = process.create_time() * 1000 <= run.info.start_time  # else another process has its number
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            client.set_terminated(run.info.run_id, "KILLED")


def process_tags() -> dict[str, str]:
    """The tags by which `end_killed_runs` finds the process of a run."""
    return {"host": platform.node(), "pid": str(os.getpid())}


def next_color(client: mlflow.MlflowClient, experiment_id: str) -> str:
    """The first of `RUN_COLORS` that none of the newest runs has."""
    newest = client.search_runs([experiment_id], max_results=len(RUN_COLORS) - 1, order_by=["start_time DESC"])
    taken = {run.data.tags.get(COLOR_TAG) for run in newest}
    return next(color for color in RUN_COLORS if color not in taken)
