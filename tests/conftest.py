from __future__ import annotations

import os

# Before mlflow or bentoml is imported anywhere: no test reports to anybody.
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
from tests.archives import make_batches, record_files, running_server

ROOT = Path(__file__).parent.parent

settings.register_profile("default", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser):
    parser.addoption("--refresh-golden", action="store_true", help="write the golden losses anew")


def pytest_collection_modifyitems(items):
    """The longest file first: with two workers, the others run beside it."""
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


@pytest.fixture
def data_params():
    return DataParams(
        classes=["automobile", "truck"],
        shown_as={"automobile": "car"},
        images_per_class={"train": 100, "test": 20},
        validation_share=0.2,
    )


@pytest.fixture
def records(tmp_path):
    """Six small record files and their digests, 20 images a class in each."""
    from pipeline.base.files import sha256_of

    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, content in record_files(make_batches(20)).items():
        (folder / name).write_bytes(content)
    return {path: sha256_of(path) for path in (folder / name for name in record_files(make_batches(1)))}


@pytest.fixture
def dataset(records, data_params):
    """200 training images (40 of them validation) and 40 test images, learnable."""
    return extract(records, data_params, seed=0)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """As `dataset`, made once."""
    from pipeline.base.files import sha256_of

    folder = tmp_path_factory.mktemp("records")
    paths = {folder / name: content for name, content in record_files(make_batches(20)).items()}
    for path, content in paths.items():
        path.write_bytes(content)
    params = DataParams(
        classes=["automobile", "truck"],
        shown_as={"automobile": "car"},
        images_per_class={"train": 100, "test": 20},
        validation_share=0.2,
    )
    return extract({path: sha256_of(path) for path in paths}, params, seed=0)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def some_images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def copy_of_repository(target: Path) -> Path:
    """What git would clone: the files it tracks or would track, as they are now."""
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
