"""A line names what is damaged, missing or down, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from PIL import Image, ImageOps

from pipeline.approaches import cnn
from pipeline.base.errors import PipelineError
from pipeline.results import result as results
from pipeline.stages import sync as sync_stage
from pipeline.tracking import connection as tracking
from pipeline.tracking import publish, store, sync
from tests.conftest import ROOT
from tests.mlflow_server import refusing_server, running_mlflow
from tests.projects import MODELS, retrain_cnn, small_params
from tests.synced import aliases, connected, content, original, project, runs, synced

__all__ = ["original", "project"]


def test_a_damaged_result_is_named_and_the_others_are_synced(project):
    (project / "mlflow.db").unlink()
    (project / "models/cnn-tuned/card.json").write_text("{")
    (fault,) = synced()
    assert "models/cnn-tuned/card.json is damaged" in fault
    assert set(runs()) == {"baseline"}


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_a_damaged_result_is_named_where_its_run_is_there_too(project, damage):
    path = project / "models/cnn-tuned/history.csv"
    text = path.read_text()
    path.unlink()
    if damage == "another":
        path.write_text(text.replace("1,", "2,", 1))
    (fault,) = synced()
    assert "models/cnn-tuned" in fault
    assert "run `dvc repro`" in fault
    assert set(runs()) == set(MODELS), "nothing is lost"


@pytest.mark.parametrize("missing", ["run.json", "history.csv", "model.safetensors"])
def test_a_missing_file_is_named(project, missing):
    (project / "mlflow.db").unlink()
    (project / "models/cnn-tuned" / missing).unlink()
    faults = synced()
    assert any(f"cnn-tuned/{missing}" in fault for fault in faults), faults


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_pictures_are_looked_at_before_a_run_is_made(project, damage):
    (project / "mlflow.db").unlink()
    figures = project / "reports/figures/cnn-tuned"
    if damage == "missing":
        shutil.rmtree(figures)
    else:
        picture = figures / "roc.png"
        content = picture.read_bytes()
        picture.unlink()
        picture.write_bytes(content[: len(content) // 2])
    (fault,) = synced()
    assert "reports/figures/cnn-tuned" in fault
    assert set(runs()) == {"baseline"}, "nothing half-written"


def test_rebuilding_that_was_killed_is_done_again_and_leaves_one_run(project, monkeypatch):
    (project / "mlflow.db").unlink()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sync, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            synced()
    assert not synced()
    assert set(runs()) == set(MODELS)
    client, experiment_id = tracking.connect("car-or-truck")
    assert len(client.search_runs([experiment_id])) == len(MODELS), "what the killed one left is deleted"


def test_a_store_that_fails_in_the_middle_is_named_and_the_others_are_synced(project, monkeypatch):
    (project / "mlflow.db").unlink()
    original = publish.log_files

    def refuse(client, run_id, result, names):
        if result.name == "baseline":
            raise OSError("403 Forbidden")
        original(client, run_id, result, names)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(publish, "log_files", refuse)
            (fault,) = synced()
        assert fault == f"MLflow at {store.tracking_uri()}: 403 Forbidden"
        assert set(runs()) == {"cnn-tuned"}, "no attempt leaves a half-written run"
    assert not synced()
    assert set(runs()) == set(MODELS)


@pytest.mark.parametrize("results_there", [False, True])
def test_the_stage_ends_well_before_there_is_a_champion(project, capsys, results_there):
    shutil.rmtree("models/champion")
    if not results_there:
        shutil.rmtree("models")
        shutil.rmtree("reports/metrics")
    sync_stage.main()
    printed = capsys.readouterr().out
    assert ("no results exist yet" in printed) == (not results_there)


def test_changed_results_are_not_taken_for_those_of_the_run(project):
    (project / "mlflow.db").unlink()
    path = project / "models/baseline/card.json"
    path.write_text(path.read_text().replace('"parameters": 1025', '"parameters": 1026'))
    (fault,) = synced()
    assert "models/baseline is not what its run.json was written for" in fault


def test_a_server_that_does_not_answer_is_not_taken_for_lost_files(project, monkeypatch):
    def refuse(*_):
        raise OSError("Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "list_logged_model_artifacts", refuse)
        (fault,) = synced()
    assert "Connection reset by peer" in fault
    assert aliases() == {"champion": "1"}
    assert len(connected().search_model_versions("name = 'car-or-truck'")) == 1


def test_a_run_that_broke_off_is_replaced_by_a_whole_one(project):
    """The run is as a SIGKILL between its last epoch and its end leaves it."""
    client = connected()
    run_id = runs()["cnn-tuned"].info.run_id
    client.delete_tag(run_id, "result_digest")
    client.set_tag(run_id, "pid", "999999999")
    client.update_run(run_id, "RUNNING")
    assert not synced()
    assert runs()["cnn-tuned"].info.run_id != run_id
    assert content(runs()["cnn-tuned"])["images"]


def test_training_goes_on_without_a_server_and_sync_brings_the_run_in(project, monkeypatch, capsys):
    before = runs()["cnn-tuned"].info.run_id
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        retrain_cnn(small_params())
        with pytest.raises(PipelineError, match="http://127.0.0.1:9 cannot be used.*Connection refused"):
            synced()
    output = capsys.readouterr().out
    assert "warning: MLflow at http://127.0.0.1:9 cannot be used" in output
    assert output.count("the training goes on without it") == 1
    assert results.read_record(Path("models/cnn-tuned")).run_id is None
    assert not synced()
    client, experiment_id = tracking.connect("car-or-truck")
    named = client.search_runs([experiment_id], "attributes.run_name = 'cnn-tuned'")
    assert len(named) == 2
    assert {before} < {run.info.run_id for run in named}


@pytest.mark.parametrize("answer", [403, 500])
def test_a_server_that_refuses_stops_no_training(project, monkeypatch, capsys, answer):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with refusing_server(answer) as address, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        retrain_cnn(small_params())
        with pytest.raises(PipelineError, match=f"{address} cannot be used"):
            synced()
    output = capsys.readouterr().out
    assert output.count("the training goes on without it") == 1
    assert str(answer) in output
    assert "epoch   3/3" in output
    assert not synced()


def test_a_server_that_dies_in_the_middle_stops_no_training(project, tmp_path, monkeypatch, capsys):
    """It dies after the first epoch; `make sync` then puts a whole run into another server over the same store."""
    store_options = ("--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", "artifacts")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setenv(
            "MLFLOW_TRACKING_URI", stack.enter_context(running_mlflow("server", *store_options, folder=tmp_path))
        )

        def train(recipe, job):
            def on_epoch(epoch):
                job.on_epoch(epoch)
                if epoch.epoch == 1:
                    stack.close()

            return cnn.train(recipe, replace(job, on_epoch=on_epoch))

        params = small_params()
        often = params.tracking.model_copy(update={"system_metrics_seconds": 0.2})
        retrain_cnn(params.model_copy(update={"tracking": often}), train)
    output = capsys.readouterr().out
    assert output.count("the training goes on without it") == 1
    assert "epoch   3/3" in output
    half_written = results.read_record(Path("models/cnn-tuned")).run_id
    assert half_written is not None
    with running_mlflow("server", *store_options, folder=tmp_path) as address, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        assert connected().get_run(half_written).info.status != "FINISHED"
        assert not synced()
        assert set(runs()) == set(MODELS)
        whole = runs()["cnn-tuned"]
        assert whole.info.run_id != half_written
        assert [step for step, _ in content(whole)["curves"]["epoch/train_loss"]] == [1, 2, 3]
        assert content(whole)["images"]


def test_an_experiment_that_was_deleted_stops_only_its_own_results(project):
    record = results.read_record(Path("models/baseline"))
    (project / "models/baseline/run.json").unlink()
    (project / "models/baseline/run.json").write_text(
        record.model_copy(update={"experiment": "elsewhere"}).model_dump_json()
    )
    assert not synced()
    client, experiment_id = tracking.connect("elsewhere")
    client.delete_experiment(experiment_id)
    (fault,) = synced()
    assert "MLflow's experiment elsewhere was deleted: `mlflow experiments restore" in fault
    client.delete_run(runs()["cnn-tuned"].info.run_id)
    assert len(synced()) == 1


def test_a_stage_only_warns_when_mlflow_cannot_be_reached(project, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        sync_stage.main()
    assert "`make sync` tries again" in capsys.readouterr().out


def test_a_database_of_an_older_schema_is_an_error_that_says_what_to_do(project):
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = 'acf3f17fdcc7'")
    with pytest.raises(PipelineError, match="out-of-date database schema.*`mlflow db upgrade sqlite:///.*mlflow.db`"):
        synced()


def test_tables_of_an_unknown_version_are_read_by_mlflow_and_never_written(project, monkeypatch, capsys):
    """A newer MLflow may have another schema. Here the known one is called unknown, and MLflow's client reads it."""
    monkeypatch.setattr(store, "KNOWN_REVISIONS", frozenset({"of another day"}))
    with sqlite3.connect("mlflow.db") as database:
        (stored,) = database.execute("select artifact_location from experiments where name = 'car-or-truck'").fetchone()
    assert not stored.startswith(str(project)), "the folder was moved"
    with pytest.raises(store.UnknownSchema):
        store.experiment("car-or-truck")
    assert not store.holds({}, None)
    sync_stage.main()
    printed = capsys.readouterr().out
    assert "warning: mlflow.db was made in" in printed
    assert "`mv mlflow.db mlflow-moved.db && make sync`" in printed
    with sqlite3.connect("mlflow.db") as database:
        assert database.execute("select artifact_location from experiments where name = 'car-or-truck'").fetchone() == (
            stored,
        )
    Path("mlflow.db").rename("mlflow-moved.db")
    command = [sys.executable, "-m", "pipeline.commands.sync"]  # in a process of its own: MLflow keeps databases open
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    with sqlite3.connect("mlflow.db") as database:
        names = {name for (name,) in database.execute("select name from runs where lifecycle_stage = 'active'")}
    assert names == set(MODELS)


def test_new_metrics_and_pictures_take_the_place_of_the_old_ones(project):
    """A chart changes, as by another title: the run stays, and shows the new chart."""
    before = content(runs()["cnn-tuned"])
    picture = project / "reports/figures/cnn-tuned/roc.png"
    with Image.open(picture) as image:
        ImageOps.invert(image.convert("RGB")).save(picture)
    assert not synced()
    client, run = connected(), runs()["cnn-tuned"]
    after = content(run)
    assert after["images"] == before["images"], "each picture is there once"
    assert after["curves"].keys() == before["curves"].keys()
    (shown,) = [file.path for file in client.list_artifacts(run.info.run_id, "images") if "images/roc+" in file.path
                and not file.path.endswith(".webp")]  # fmt: skip
    with Image.open(client.download_artifacts(run.info.run_id, shown)) as image, Image.open(picture) as expected:
        assert image.convert("RGB").tobytes() == expected.tobytes()
    assert content(runs()["baseline"])["files"], "the other run is left alone"


def test_a_file_that_is_not_a_database_is_an_error_that_says_what_to_do(project):
    Path("mlflow.db").write_text("not a database")
    with pytest.raises(PipelineError, match="file is not a database; move it away, and `make sync`"):
        synced()
