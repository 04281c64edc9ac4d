"""The registered model of MLflow follows the champion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx

from pipeline.base.files import read_json, sha256_of
from pipeline.results import result as results
from pipeline.tracking import store
from tests.conftest import ROOT, clean_environment
from tests.synced import aliases, connected, original, project, runs, synced

__all__ = ["original", "project"]


def test_the_registered_model_says_what_it_takes_and_gives(project):
    version = connected().get_model_version_by_alias("car-or-truck", "champion")
    model = mlflow.models.get_model_info("models:/car-or-truck@champion")
    assert [(spec.name, spec.type, spec.shape) for spec in model.signature.inputs.inputs] == [
        ("images", np.dtype("uint8"), (-1, 32, 32, 3))
    ]
    assert [spec.name for spec in model.signature.outputs.inputs] == ["probability"]
    loaded = mlflow.pyfunc.load_model("models:/car-or-truck@champion")
    assert loaded.input_example["images"].shape == (1, 32, 32, 3)
    assert version.run_id == runs()[version.tags["model"]].info.run_id
    assert results.read(Path("models") / version.tags["model"]).card.title in version.description


def test_the_guides_python_asks_the_champion(project):
    assert not synced()
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tracking.md").read_text(), re.DOTALL)
    code = code.replace("champion.predict(", "print(champion.predict(").replace("numpy.uint8))", "numpy.uint8)))")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=project, env=clean_environment(), capture_output=True, text=True, check=True)
    assert "{'probability': array([0." in done.stdout


def test_a_champion_whose_run_was_deleted_is_still_registered(project):
    best = connected().get_model_version_by_alias("car-or-truck", "champion")
    connected().delete_run(best.run_id)
    connected().delete_registered_model("car-or-truck")
    assert not synced()
    version = connected().get_model_version_by_alias("car-or-truck", "champion")
    assert not version.run_id
    assert mlflow.pyfunc.load_model("models:/car-or-truck@champion")


def test_a_champion_of_an_earlier_training_is_not_put_under_the_new_run(project):
    path = project / "models/champion/card.json"
    card = read_json(path) | {"weights_sha256": "0" * 64}
    path.unlink()
    path.write_text(json.dumps(card))
    connected().delete_registered_model("car-or-truck")
    assert not synced()
    assert not connected().get_model_version_by_alias("car-or-truck", "champion").run_id


def test_a_new_champion_is_a_new_version_and_an_old_one_gets_its_alias_back(project):
    client = connected()
    first = sha256_of(project / "models/champion/model.onnx")
    shutil.copytree("models/champion", "kept")
    path = project / "models/champion/model.onnx"
    model = onnx.load(path)
    model.doc_string = "another"
    path.unlink()
    onnx.save(model, path)
    card = read_json(project / "models/champion/card.json")
    card["files"]["model.onnx"]["sha256"] = sha256_of(path)
    (project / "models/champion/card.json").unlink()
    (project / "models/champion/card.json").write_text(json.dumps(card))
    assert not store.holds({}, sha256_of(path))
    assert not synced()
    assert aliases() == {"champion": "2", "previous": "1"}
    assert store.holds({}, sha256_of(path))
    shutil.rmtree("models/champion")
    shutil.move("kept", "models/champion")
    assert not synced()
    assert aliases() == {"champion": "1", "previous": "2"}
    assert client.get_model_version("car-or-truck", "1").tags["onnx_sha256"] == first
