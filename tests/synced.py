"""A small finished project, to compare its MLflow with its result folders."""

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
    """A copy of the finished project, in which the test works; for MLflow the project was moved."""
    folder = tmp_path / "a copy, elsewhere"
    shutil.copytree(original, folder)
    utils._artifact_repos_cache.clear()  # it goes by run id, and all copies have the same ids
    with working_in(folder):
        yield folder


def connected() -> mlflow.MlflowClient:
    client, _ = tracking.connect("car-or-truck")
    return client


def synced() -> list[str]:
    return sync.sync(sync.result_folders())


def runs(view: int = ViewType.ACTIVE_ONLY) -> dict[str, mlflow.entities.Run]:
    client, experiment_id = tracking.connect("car-or-truck")
    rows = client.search_runs([experiment_id], run_view_type=view)
    by_name = {run.info.run_name: run for run in rows}
    assert len(by_name) == len(rows), "nothing is there twice"
    return by_name


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
        "inputs": [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs],
    }


def sqlite_content(folder: Path) -> dict:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: sorted(map(repr, database.execute(f"select * from {name}"))) for name in tables}


def aliases() -> dict[str, str]:
    model = connected().get_registered_model(store.REGISTERED_MODEL)
    return {alias: str(version) for alias, version in model.aliases.items()}
