"""MLflow agrees with the result folders, whatever happened to either."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking._tracking_service import utils

from pipeline.approaches import cnn
from pipeline.base.files import read_json, sha256_of
from pipeline.packaging.export import onnx_probabilities
from pipeline.results import result as results
from pipeline.stages import sync as sync_stage
from pipeline.tracking import chart_view, store
from pipeline.tracking import connection as tracking
from tests.conftest import ROOT
from tests.projects import MODELS, look_at_results, small_params, train_baseline, train_cnn, working_in
from tests.synced import aliases, connected, content, original, project, runs, sqlite_content, synced

__all__ = ["original", "project"]


def test_a_run_shows_the_result_folder(project):
    for name, run in runs().items():
        seen = content(run)
        metrics = read_json(project / f"reports/metrics/{name}.json")
        assert seen["metrics"].items() >= metrics.items()
        assert {f"figures/{path.name}" for path in Path(f"reports/figures/{name}").iterdir()} <= seen["files"]
        assert seen["inputs"] == [("car_truck", results.read(Path("models") / name).card.dataset_digest[:36])]
        assert f"{metrics['test_accuracy']:.2%}".replace("%", " %") in seen["description"]
        assert run.data.tags["dataset_digest"] == results.read(Path("models") / name).card.dataset_digest
        assert run.data.tags["code_changed"] in {"true", "false", "none"}
        assert run.data.tags["torch"] == version("torch")
        assert {"python", "dvc", "mlflow", "device", "precision", "params_digest", "git_commit"} <= run.data.tags.keys()
    tuned = content(runs()["cnn-tuned"])
    assert all(speed > 0 for _, speed in tuned["curves"]["epoch/images_per_second"])
    assert runs()["baseline"].data.params == {"seed": "0"}
    machine = {name: tuned["params"][name] for name in ("seed", "device", "processes", "deterministic")}
    assert machine == {"seed": "0", "device": "cpu", "processes": "1", "deterministic": "False"}
    assert len(tuned["curves"]["epoch/learning_rate"]) == 3
    steps = {name.split("+step+")[1] for name in tuned["images"] if name.startswith("images/filters+")}
    assert steps == {"0", "1"}, "a slider shows learning"


def test_runs_differ_in_color_and_in_the_name_of_their_experiment(project, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "brave-one")
    train_baseline(small_params())
    by_name = runs()
    assert set(by_name) == {"baseline", "cnn-tuned", "baseline (brave-one)"}
    assert len({run.data.tags["mlflow.runColor"] for run in by_name.values()}) == 3


def test_a_rebuilt_run_keeps_its_color(project):
    (project / "mlflow.db").unlink()
    assert not synced()
    for name, run in runs().items():
        color = results.read_record(Path("models") / name).tags["mlflow.runColor"]
        assert run.data.tags["mlflow.runColor"] == color


def test_curves_are_there_while_it_trains(project, small_dataset):
    seen = []

    def look(params, job):
        def on_epoch(epoch):
            job.on_epoch(epoch)
            (run,) = connected().search_runs(["1"], "attributes.status = 'RUNNING'")
            points = connected().get_metric_history(run.info.run_id, "epoch/train_loss")
            seen.append((run.info.run_name, [point.step for point in points]))

        return cnn.train(params, replace(job, on_epoch=on_epoch))

    train_cnn(small_params(), look)
    assert seen == [("cnn-tuned", [1]), ("cnn-tuned", [1, 2]), ("cnn-tuned", [1, 2, 3])]


def test_running_it_twice_changes_nothing(project):
    assert not synced()
    before = sqlite_content(project)
    assert not synced()
    assert sqlite_content(project) == before


def test_a_deleted_database_is_rebuilt_with_everything(project, tmp_path):
    before = {name: content(run) for name, run in runs().items()}
    fresh = tmp_path / "fresh"  # a clone after `dvc pull`
    shutil.copytree(project, fresh, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns"))
    utils._artifact_repos_cache.clear()
    with working_in(fresh):
        assert not synced()
        after = runs()
        rebuilt_content = {name: content(run) for name, run in after.items()}
    for name in MODELS:
        rebuilt = rebuilt_content[name]
        for what in before[name]:
            if what == "times":  # a live run has the times of MLflow's own clock
                assert np.allclose(rebuilt[what], before[name][what], rtol=0, atol=30_000)
            else:
                assert rebuilt[what] == before[name][what], what
        assert after[name].data.tags["rebuilt"] == "true"
        assert after[name].info.status == "FINISHED"


def test_a_moved_folder_shows_its_artifacts_and_loads_its_champion(project, original, capsys):
    sync_stage.main()
    assert "the folder was moved" in capsys.readouterr().out
    for run in runs().values():
        assert run.info.artifact_uri.startswith(str(project))
    champion = mlflow.pyfunc.load_model("models:/car-or-truck@champion")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = onnx_probabilities(project / "models/champion/model.onnx", images)
    assert np.allclose(champion.predict(images)["probability"], expected)
    assert str(original) not in json.dumps(sqlite_content(project))


def test_the_look_at_the_end_of_every_repro_imports_no_mlflow(project):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline.stages.sync"], cwd=project, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "MLflow has all 2 results and the champion" in done.stdout, done.stderr
    assert "mlflow" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_a_run_deleted_in_the_ui_stays_deleted_and_is_named(project, capsys):
    run_id = runs()["cnn-tuned"].info.run_id
    connected().delete_run(run_id)
    assert not synced()
    assert f"mlflow runs restore --run-id {run_id}" in capsys.readouterr().out
    assert set(runs()) == {"baseline"}
    sync_stage.main()
    assert "mlflow runs restore" in capsys.readouterr().out, "every `dvc repro` says so too"


def test_a_result_whose_record_is_lost_is_named_by_every_repro(project, capsys):
    (project / "models/cnn-tuned/run.json").unlink()
    sync_stage.main()
    assert "warning: models/cnn-tuned/run.json is missing" in capsys.readouterr().out


def test_the_experiment_offers_a_view_of_the_lecture_and_leaves_a_users_own(project):
    client, experiment_id = tracking.connect("car-or-truck")
    name = chart_view.tag(["car", "truck"])
    view = json.loads(client.get_experiment(experiment_id).tags[name])
    assert view["name"] == "Car or truck: the lecture"
    client.set_experiment_tag(experiment_id, name, "a user's")
    assert not synced()
    assert client.get_experiment(experiment_id).tags[name] == "a user's"


def test_make_ui_finds_the_experiment_without_mlflow(project):
    _, experiment_id = tracking.connect("car-or-truck")
    number, tags = store.experiment("car-or-truck")
    assert number == experiment_id
    assert chart_view.tag(["car", "truck"]) in tags
    assert store.experiment("another") is None
    address = chart_view.address(experiment_id, ["car", "truck"])
    assert address.endswith(f"/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
                            "&viewStateShareKey=car-or-truck")  # fmt: skip
    (project / "mlflow.db").unlink()
    with pytest.raises(store.UnknownSchema):
        store.experiment("car-or-truck")


def test_mlflows_own_name_of_the_database_is_the_repositorys(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert store.is_local()
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(tmp_path)
    assert store.tracking_uri() == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere/else.db")
    assert not store.is_local()


def test_lost_artifacts_come_back(project):
    before = {name: content(run) for name, run in runs().items()}
    shutil.rmtree(project / "mlruns")
    assert not synced()
    after = runs()
    for name in MODELS:
        assert content(after[name])["files"] == before[name]["files"]
        assert content(after[name])["images"] == before[name]["images"]
    mlflow.pyfunc.load_model("models:/car-or-truck@champion")
    versions = connected().search_model_versions("name = 'car-or-truck'")
    assert [version.version for version in versions] == [2], "the version whose files were lost is gone"


@pytest.mark.parametrize(
    "lost", [*store.RESULT_FILES, "metrics.json", "figures", "figures/roc.png", "images", "images/filters+*"]
)
def test_what_a_run_lost_comes_back_once(project, lost):
    before = content(runs()["cnn-tuned"])
    sync_stage.follow_the_folder()
    folders = {results.read_record(Path("models/cnn-tuned")).result_digest: Path("models/cnn-tuned")}
    champion = sha256_of(project / "models/champion/model.onnx")
    assert store.holds(folders, champion)
    paths = list(Path(runs()["cnn-tuned"].info.artifact_uri).glob(lost))
    assert paths
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not store.holds(folders, champion), "`dvc repro` sees it"
    assert not synced()
    assert content(runs()["cnn-tuned"]) == before
    assert store.holds(folders, champion)


def test_an_experiment_in_a_copy_logs_here_and_leaves_the_champion_alone(project, tmp_path, monkeypatch):
    """`dvc exp run --temp` works so: in another directory, with the repository as DVC_ROOT."""
    copy = tmp_path / "temporary"
    shutil.copytree(project, copy)
    (copy / "mlflow.db").unlink()
    with working_in(copy), monkeypatch.context() as patch:
        patch.setenv("DVC_ROOT", str(project))
        patch.setenv("DVC_EXP_NAME", "brave-one")
        train_baseline(small_params())
        look_at_results()
        (copy / "models/champion/model.onnx").unlink()
        assert not synced()
        assert not (copy / "mlflow.db").exists()
    client, experiment_id = tracking.connect("car-or-truck")
    (run,) = client.search_runs([experiment_id], "tags.dvc_experiment = 'brave-one'")
    assert run.info.artifact_uri.startswith(str(project))
    assert aliases() == {"champion": "1"}


def test_two_at_once_on_a_fresh_database_rebuild_each_run_once(project):
    (project / "mlflow.db").unlink()
    command = [sys.executable, "-m", "pipeline.commands.sync"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert set(runs()) == set(MODELS)
    assert aliases() == {"champion": "1"}
