from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import mlflow
import optuna
import pytest
import yaml

from pipeline import approaches
from pipeline.approaches.cnn import LectureCnn
from pipeline.base.errors import PipelineError
from pipeline.base.params import Params, approach_names, load_params
from pipeline.commands import sweep
from pipeline.data.dataset import save
from pipeline.learning.approach import Trained
from pipeline.learning.card import Epoch
from tests.conftest import ROOT, clean_environment


@pytest.fixture
def folder(dataset, document, in_tmp):
    """A folder for sweeps, with small data and short training."""
    save(dataset)
    document["cnn"]["tuned"]["training"] |= {"epochs": 2, "batch_size": 16}
    document["device"] = "cpu"
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    return in_tmp


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    sweep.main()


def process(folder, trials: int) -> subprocess.Popen[str]:
    """A sweep in a process of its own, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.commands.sweep", "cnn-tuned", "--trials", str(trials)],
        cwd=folder, env=clean_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def runs_in(folder) -> int:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        (count,) = database.execute("select count(*) from runs").fetchone()
    return count


def test_a_sweep_starts_from_params_goes_on_and_prints_lines_to_paste(folder, document, monkeypatch, capsys):
    run(monkeypatch, "cnn-tuned", "--trials", "2")
    run(monkeypatch, "cnn-tuned", "--trials", "1")
    (name,) = optuna.get_all_study_names(sweep.STORAGE)
    study = optuna.load_study(study_name=name, storage=sweep.STORAGE)
    assert len(study.trials) == 3
    start = document["cnn"]["tuned"]["training"]
    assert study.trials[0].params == pytest.approx({name: start[name] for name in study.trials[0].params})
    printed = capsys.readouterr().out
    lines = yaml.safe_load(printed[printed.rindex("cnn:") :])
    start |= lines["cnn"]["tuned"]["training"]
    assert approaches.models(Params.of(document, approach_names()))
    best = study.best_trial
    assert lines["cnn"]["tuned"]["training"] == pytest.approx(best.params, rel=0.01)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("car-or-truck-sweeps")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    best_run = next(run for run in children if run.data.tags["optuna_trial"] == str(best.number))
    assert best_run.data.metrics["validation_accuracy"] == best.value
    assert len(client.get_metric_history(best_run.info.run_id, "epoch/train_loss")) == 2


def test_a_study_goes_on_where_its_runs_are_gone(folder):
    for finished in (1, 2):
        sweeping = process(folder, trials=1)
        printed, errors = sweeping.communicate(timeout=200)
        assert sweeping.returncode == 0, errors
        assert f"{finished} trials finished" in printed
        assert "warning" not in printed
        assert runs_in(folder) == 2, "a parent and its child"
        for path in folder.glob("mlflow.db*"):
            path.unlink()


def test_a_trial_goes_on_where_mlflow_fails(folder, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError("Connection refused")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    run(monkeypatch, "cnn-tuned", "--trials", "1")
    printed = capsys.readouterr().out
    assert "warning: MLflow: Connection refused; the trial goes on without it" in printed
    assert "1 trials finished" in printed


def test_two_processes_share_a_study(folder):
    started = [process(folder, trials=2) for _ in range(2)]
    for sweeping in started:
        _, errors = sweeping.communicate(timeout=200)
        assert sweeping.returncode == 0, errors
    (name,) = optuna.get_all_study_names(sweep.STORAGE)
    trials = optuna.load_study(study_name=name, storage=sweep.STORAGE).trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert all(trial.state.is_finished() for trial in trials)
    assert runs_in(folder) == 5, "one parent and its children"


def test_a_trial_behind_the_median_is_pruned(folder, monkeypatch, document, capsys):
    """The sweep has four trials of six epochs each; the last one learns nothing."""
    document["cnn"]["tuned"]["training"]["epochs"] = 6
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    started, epochs = [], []

    def train(recipe, job):
        started.append(recipe)
        for number in range(1, recipe.training.epochs + 1):
            accuracy = 0.5 if len(started) == 4 else 0.9
            epochs.append(Epoch(number, 0.1, 0.9, 0.1, accuracy, 1e-3, 1000.0, 1.0))
            job.on_epoch(epochs[-1])
        return Trained(LectureCnn("rgb"), 1.0, epochs)

    model = sweep.tunable(load_params())["cnn-tuned"]
    model = replace(model, approach=replace(model.approach, train=train))
    monkeypatch.setattr(sweep, "tunable", lambda _: {"cnn-tuned": model})
    run(monkeypatch, "cnn-tuned", "--trials", "4")
    assert "3 trials finished, 1 pruned" in capsys.readouterr().out
    assert len(epochs) < 4 * 6


@pytest.mark.parametrize(
    "storage", ["postgresql://nobody@127.0.0.1:9/optuna", "nonsense", "sqlite:////nowhere/at/all.db"]
)
def test_a_storage_that_cannot_be_used_is_a_clear_error(folder, monkeypatch, storage):
    with pytest.raises(PipelineError, match=f"--storage {storage} cannot be used: "):
        run(monkeypatch, "cnn-tuned", "--trials", "1", "--storage", storage)


def test_other_params_are_another_study(folder, document, params, dataset):
    def study(params):
        return sweep.open_study(sweep.tunable(params)["cnn-tuned"], sweep.STORAGE, params, dataset)[0]

    first, again = study(params), study(params)
    document["cnn"]["tuned"]["training"]["epochs"] += 1
    other = study(Params.of(document, approach_names()))
    assert first.study_name == again.study_name != other.study_name


def test_a_loss_that_is_not_a_number_ends_only_its_trial(folder, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "suggest", lambda _, params: params.model_copy(update={"learning_rate": 1e30}))
    run(monkeypatch, "cnn-tuned", "--trials", "1")
    printed = capsys.readouterr().out
    assert "the loss is" in printed
    assert "no trial was finished" in printed


def test_a_sweep_without_validation_images_is_refused(folder, dataset, document, monkeypatch):
    dataset.manifest["split"] = dataset.manifest["split"].replace("validation", "train")
    save(dataset)
    with pytest.raises(PipelineError, match=r"data\.validation_share is 0"):
        run(monkeypatch, "cnn-tuned", "--trials", "1")
