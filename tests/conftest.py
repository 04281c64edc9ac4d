from __future__ import annotations

import os

# Set before anything imports mlflow or bentoml: tests send no telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import settings

from pipeline.base.params import DataParams, Params, approach_names
from pipeline.data.extract import extract
from tests.archives import running_server, write_records

ROOT = Path(__file__).parent.parent

settings.register_profile("default", deadline=None)  # on a busy machine a test is slow, not wrong
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser):
    parser.addoption("--refresh-golden", action="store_true", help="write the golden losses anew")


def pytest_collection_modifyitems(items):
    """Run the longest file first: with two workers, the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


@pytest.fixture
def server():
    with running_server() as running:
        yield running


@pytest.fixture
def document():
    """params.yaml as plain dictionaries, free to change."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture
def params(document):
    return Params.of(document, approach_names())


def set_key(document: dict, key: str, value) -> None:
    """Change one value of params.yaml, by its dotted key."""
    *sections, name = key.split(".")
    for section in sections:
        document = document[section]
    document[name] = value


@pytest.fixture(scope="session")
def data_params():
    return DataParams(
        classes=["automobile", "truck"],
        shown_as={"automobile": "car"},
        images_per_class={"train": 100, "test": 20},
        validation_share=0.2,
    )


@pytest.fixture
def records(tmp_path):
    """The digests of six small record files, with 20 images of each class in each."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    return write_records(folder, 20)


@pytest.fixture
def dataset(records, data_params):
    """200 training images, 40 of them for validation, and 40 test images; a model can learn them."""
    return extract(records, data_params, seed=0)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory, data_params):
    """The images of `dataset`, made once for all tests."""
    return extract(write_records(tmp_path_factory.mktemp("records"), 20), data_params, seed=0)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def some_images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without its places of MLflow and DVC, and with `changes`."""
    places = ("MLFLOW_TRACKING_URI", "DVC_ROOT")
    return {name: value for name, value in os.environ.items() if name not in places} | changes


def copy_of_repository(target: Path) -> Path:
    """Copy what git would clone: the files that it tracks or would track, with their latest changes."""
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = (
        listed.stdout.split("\n")
        if listed.returncode == 0
        else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts and path.is_file()]
    )
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
