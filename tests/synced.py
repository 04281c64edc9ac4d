"""A small finished project whose MLflow is held against its result folders."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import ViewType
from mlflow.tracking._tracking_service import utils

from pipeline.tracking import connection as tracking
from pipeline.tracking import store, sync
from tests import projects
from tests.projects import working_in


@pytest.fixture(scope="module")
def original(tmp_path_factory, small_dataset):
    folder = tmp_path_factory.mktemp("original")
    projects.make(folder, small_dataset)
    return folder


@pytest.fixture
def project(original, tmp_path):
    """A copy of the finished project, and so a moved one; the test works in it."""
    folder = tmp_path / "a copy, elsewhere"
    shutil.copytree(original, folder)
    utils._artifact_repos_cache.clear()  # by run id: in one process, the copies' runs would be one another's
    with working_in(folder):
        yield folder


def connected() -> mlflow.MlflowClient:
    client, _ = tracking.connect("car-or-truck")
    return client


def synced() -> list[str]:
    return sync.sync(sync.result_folders())


def runs(view: int = ViewType.ACTIVE_ONLY) -> dict[str, mlflow.entities.Run]:
    client, experiment_id = tracking.connect("car-or-truck")
    found = client.search_runs([experiment_id], run_view_type=view)
    assert len({run.info.run_name for run in found}) == len(found), "nothing is there twice"
    return {run.info.run_name: run for run in found}


def content(run: mlflow.entities.Run) -> dict:
    """All that a person sees of a run."""
    client, run_id = connected(), run.info.run_id
    curves = {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    files = {
        file.path for top in client.list_artifacts(run_id) for file in [top, *client.list_artifacts(run_id, top.path)]
    }
    grid = sorted(name.partition("+timestamp")[0] for name in files if name.startswith("images/"))
    return {
        "metrics": run.data.metrics,
        "curves": curves,
        "params": run.data.params,
        "times": (run.info.start_time, run.info.end_time),
        "description": run.data.tags["mlflow.note.content"],
        "own tags": {
            name: run.data.tags[name] for name in ("stage", "device", "git_commit", "params_digest", "result_digest")
        },
        "files": {name for name in files if not name.startswith("images/")},
        "images": grid,
        "inputs": [(found.dataset.name, found.dataset.digest) for found in run.inputs.dataset_inputs],
    }


def sqlite_content(folder: Path) -> dict:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: sorted(map(repr, database.execute(f"select * from {name}"))) for name in tables}


def aliases() -> dict[str, str]:
    found = connected().get_registered_model(store.REGISTERED_MODEL).aliases
    return {alias: str(version) for alias, version in found.items()}
