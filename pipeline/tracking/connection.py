"""MLflow's client, ready to use, and the tags and colours of runs."""

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
"""The colours of runs in MLflow's charts, in turn. MLflow itself picks a random colour, and two runs may look alike."""

DESCRIPTION = """Three representations of images, as in the lecture: raw pixels (`baseline`), learned filters (`cnn-*`),
transferred features (`transfer`). The chart view under *Runs* shows accuracies and pictures side by side."""


def connect(experiment: str) -> tuple[mlflow.MlflowClient, str]:
    """Point MLflow at its store and create a missing experiment. Returns a client and the experiment's id.

    Raises:
        PipelineError: the store cannot be used; the message says what to do.
    """
    for chatty in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")):
        os.environ.setdefault(name, value)  # by default each call waits minutes for a server that is down
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
        except Exception as error:  # errors of SQLAlchemy, requests and MLflow
            raise PipelineError(f"MLflow at {uri} cannot be used: {first_line(error)}{_advice(error, uri)}") from None
    if known.lifecycle_stage == "deleted":
        raise PipelineError(
            f"MLflow's experiment {experiment} was deleted: `mlflow experiments restore -x {known.experiment_id}` "
            "brings it back; tracking.experiment in params.yaml can name another one for later trainings"
        )
    if is_local() and (made_in := known.tags.get(FOLDER_TAG, str(root))) != str(root):
        raise PipelineError(
            f"mlflow.db was made in {made_in}. Its tables have an unknown version, so the paths in it were not "
            "rewritten: move the folder back, or type `mv mlflow.db mlflow-moved.db && make sync` to make a new one "
            "from the results"
        )
    return client, str(known.experiment_id)


def first_line(error: BaseException) -> str:
    """The message of an error in one line. For a failed request it is the network's message, which came first."""
    if isinstance(error, PipelineError):
        return str(error)
    root = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    chosen = root if isinstance(root, OSError) else error
    line = next((line for line in str(chosen).splitlines() if line.strip()), type(chosen).__name__)
    return line.split(". ")[0][:300]


def _advice(error: Exception, uri: str) -> str:
    """Advice for the two faults that a local database can have: an old schema and a damaged file."""
    if "schema" in str(error):
        return f"; keep a copy of it, then type `mlflow db upgrade {uri}`"
    if "malformed" in str(error) or "not a database" in str(error):
        return "; move it away, and `make sync` makes a new one from the results"
    return ""


def end_killed_runs(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark a run as killed if its process on this machine has ended. After a SIGKILL a process cannot do it itself."""
    criterion = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in client.search_runs([experiment_id], criterion):
        try:
            process = psutil.Process(int(run.data.tags["pid"]))
            alive = process.create_time() * 1000 <= run.info.start_time  # a later process reuses the number
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            client.set_terminated(run.info.run_id, "KILLED")


def process_tags() -> dict[str, str]:
    """The tags that name the process of a run, for `end_killed_runs`."""
    return {"host": platform.node(), "pid": str(os.getpid())}


def next_color(client: mlflow.MlflowClient, experiment_id: str) -> str:
    """The first of `RUN_COLORS` that none of the newest runs has."""
    newest = client.search_runs([experiment_id], max_results=len(RUN_COLORS) - 1, order_by=["start_time DESC"])
    taken = {run.data.tags.get(COLOR_TAG) for run in newest}
    return next(color for color in RUN_COLORS if color not in taken)
