"""More tests of the real `dvc repro`, which take longer."""

from __future__ import annotations

import re
import sqlite3

import pytest
import requests

from pipeline.commands.served import free_port, running
from tests.repository import BIN, reproduced

__all__ = ["reproduced"]


@pytest.mark.slow
def test_experiments_land_in_the_one_database_by_their_names(reproduced):
    """Two queued experiments run at once, in copies of the repository, on a fresh database; the workspace stays."""
    for command in ("add -A", "commit -qm results"):
        reproduced.git(command)
    before = reproduced.digests()
    (reproduced.folder / "mlflow.db").unlink()
    for epochs in (1, 2):
        reproduced.run(
            "dvc", "exp", "run", "--queue", "-n", f"epochs-{epochs}", "-S", f"cnn.lecture.training.epochs={epochs}"
        )
    reproduced.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
    with sqlite3.connect(reproduced.folder / "mlflow.db") as database:
        rows = database.execute(
            "select value, runs.name, artifact_uri from tags join runs using (run_uuid) where key = 'dvc_experiment'"
        ).fetchall()
    assert sorted((value, name) for value, name, _ in rows) == [
        ("epochs-1", "cnn-lecture (epochs-1)"),
        ("epochs-2", "cnn-lecture (epochs-2)"),
    ]
    assert all(location.startswith(f"{reproduced.folder}/mlruns/") for _, _, location in rows)
    assert reproduced.digests() == before
    # The deleted database had the workspace's run of this model; the experiments brought the runs of the others back.
    output = reproduced.run("dvc", "repro").stdout
    assert re.findall(r"^(\S+): its run was missing", output, re.MULTILINE) == ["cnn-lecture"]
    shown = reproduced.run("dvc", "exp", "show", "--csv").stdout
    assert "epochs-1" in shown and "epochs-2" in shown


@pytest.mark.slow
def test_mlflow_serves_the_registered_champion(reproduced):
    """`mlflow models serve` answers as the ONNX file does."""
    from pipeline.data.dataset import load
    from pipeline.packaging.export import onnx_probabilities

    images = load(reproduced.folder / "data/dataset").images[:3]
    port = free_port()
    environment = reproduced.environment | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    command = [BIN / "mlflow", "models", "serve", "-m", "models:/car-or-truck@champion", "--env-manager", "local"]
    ready = f"http://127.0.0.1:{port}/ping"
    with running([*command, "--port", str(port)], ready, environment, folder=reproduced.folder):
        body = {"instances": images.tolist()}
        answer = requests.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=30)
    assert answer.ok, answer.text
    expected = onnx_probabilities(reproduced.folder / "models/champion/model.onnx", images)
    assert answer.json()["predictions"]["probability"] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.slow  # tests/test_distributed.py has the everyday test
def test_two_processes_train_where_a_param_says_so(reproduced):
    """torchrun runs under DVC: the model learns, and the two processes log one run."""
    count = "select count(*) from runs where name = 'cnn-tuned'"
    with sqlite3.connect(reproduced.folder / "mlflow.db") as database:
        (before,) = database.execute(count).fetchone()
    with reproduced.left_as_it_was():
        reproduced.change(processes=2)
        done = reproduced.run("dvc", "repro", "--force", "--single-item", "cnn@tuned")
        assert "in 2 processes" in done.stdout
        assert done.stdout.count("epoch   3/20") == 1
        metrics = reproduced.json("reports/metrics/cnn-tuned.json")
        assert metrics["train_accuracy"] > 0.9
    with sqlite3.connect(reproduced.folder / "mlflow.db") as database:
        (after,) = database.execute(count).fetchone()
    assert after == before + 1, "the leader alone logs"
