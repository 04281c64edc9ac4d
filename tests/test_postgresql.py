"""A team's MLflow: a server over PostgreSQL, with artifacts in a folder of the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.base.errors import PipelineError
from pipeline.packaging.export import onnx_probabilities
from pipeline.stages import sync as sync_stage
from pipeline.tracking import connection as tracking
from pipeline.tracking import sync
from tests import projects
from tests.mlflow_server import running_mlflow
from tests.projects import MODELS, retrain_cnn, small_params, working_in

pytestmark = pytest.mark.slow

DATABASE = """
import os, pgserver, sys
server = pgserver.get_server(sys.argv[1], cleanup_mode="stop")
server.psql("create database runs")
print(server.get_uri(database="runs"), flush=True)
sys.stdin.read()  # until the test is done with it
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an MLflow server over PostgreSQL; the database and its driver are two packages."""
    folder = tmp_path_factory.mktemp("server")
    packages = folder / "packages"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "pip", "install", "-q", "--target", packages, "pgserver", "psycopg[binary]"], check=True)
    environment = os.environ | {"PYTHONPATH": str(packages)}
    postgres = subprocess.Popen(
        [sys.executable, "-c", DATABASE, folder / "database"], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    uri = next(line.strip() for line in postgres.stdout if line.startswith("postgresql://"))
    options = ("--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts"))
    try:
        with running_mlflow("server", *options, folder=folder, PYTHONPATH=str(packages)) as address:
            yield address
    finally:
        postgres.communicate()


@pytest.fixture
def project(server, small_dataset, tmp_path, monkeypatch):
    """An empty project whose runs go to the server."""
    with working_in(tmp_path), monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        projects.fill(small_dataset)
        yield tmp_path


def test_training_into_it_shows_everything_and_sync_finds_nothing_to_do(project, capsys):
    client, experiment_id = tracking.connect("car-or-truck")
    runs = {run.info.run_name: run for run in client.search_runs([experiment_id])}
    assert sorted(runs) == sorted(MODELS)
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"figures", "images", "card.json"}
    points = client.get_metric_history(runs["cnn-tuned"].info.run_id, "epoch/train_loss")
    assert [point.step for point in points] == [1, 2, 3]
    capsys.readouterr()
    sync_stage.main()
    assert capsys.readouterr().out.count("its run is there") == len(MODELS)
    champion = mlflow.pyfunc.load_model("models:/car-or-truck@champion")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = onnx_probabilities(project / "models/champion/model.onnx", images)
    assert np.allclose(champion.predict(images)["probability"], expected)
    assert not (project / "mlflow.db").exists()

    client.delete_experiment(experiment_id)
    assert any("mlflow experiments restore" in line for line in _refusals())
    client.restore_experiment(experiment_id)
    retrain_cnn(small_params())
    assert not sync.sync(sync.result_folders())
    assert len(client.search_runs([experiment_id], "attributes.run_name = 'cnn-tuned'")) == 2


def _refusals() -> list[str]:
    with pytest.raises(PipelineError) as refused:
        sync.sync(sync.result_folders())
    return [str(refused.value)]
