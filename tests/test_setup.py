from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_of_repository


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=1000
    )


def old_python(folder: Path) -> str:
    """A program that says it is Python 3.9, and does nothing else."""
    path = folder / "old-python"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_a_one_line_error(tmp_path):
    copy_of_repository(tmp_path)
    done = run(tmp_path, "make", "setup", PYTHON=old_python(tmp_path))
    assert done.returncode != 0
    line = done.stderr.splitlines()[0]
    assert line.startswith("error: Python 3.11, 3.12 or 3.13 with venv is needed, found: Python 3.9.1; ")
    assert not (tmp_path / ".venv").exists()


def test_an_unpacked_archive_tells_dvc_that_git_is_missing_and_a_clone_does_not(tmp_path):
    copy_of_repository(tmp_path)
    run(tmp_path, "tools/setup.sh", PYTHON="/nonexistent")
    config = tmp_path / ".dvc" / "config.local"
    assert "no_scm = true" in config.read_text()
    config.write_text(config.read_text() + "['remote \"mine\"']\n    url = /somewhere\n")
    (tmp_path / ".git").mkdir()
    run(tmp_path, "tools/setup.sh", PYTHON="/nonexistent")
    assert "no_scm" not in config.read_text()
    assert "url = /somewhere" in config.read_text(), "the user's own settings stay"


def test_the_lock_has_hashes_for_everything_and_names_no_host():
    lock = (ROOT / "requirements.lock").read_text()
    requirements = re.findall(r"^([a-zA-Z0-9._-]+)==", lock, re.MULTILINE)
    assert len(requirements) > 100
    for block in re.split(r"\n(?=[a-zA-Z0-9])", lock)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in lock


def test_the_lock_holds_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        re.match(r"[\w.-]+", line).group() for line in project["dependencies"] + project["optional-dependencies"]["dev"]
    }
    locked = set(re.findall(r"^([a-zA-Z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert declared <= locked


def test_the_services_requirements_are_the_locks_versions_and_no_training_library():
    pins = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "serving" / "requirements.txt").read_text(), re.MULTILINE))
    lock = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert pins <= lock
    assert not {pin.partition("==")[0] for pin in pins} & {"torch", "mlflow", "dvc", "pandas", "timm"}


def test_make_alone_lists_every_task():
    listed = run(ROOT, "make").stdout
    tasks = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"repro", "verify", "test", "test-slow", "ui", "serve", "lock"} <= set(tasks)
    for task in tasks:
        assert f"make {task}" in listed


def test_telemetry_is_off_in_this_environment():
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    assert (site / "car_or_truck.pth").read_text() == (ROOT / "tools" / "environment.pth").read_text()
    script = "import os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['BENTOML_DO_NOT_TRACK'])"
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "True"]
    assert "analytics = false" in (ROOT / ".dvc" / "config").read_text()


def interpreter(name: str) -> str | None:
    """A Python of this name that works and can make environments, from PATH or from pyenv."""
    folders = [*map(Path, os.environ["PATH"].split(":")), *Path.home().glob(".pyenv/versions/*/bin")]
    for path in (folder / name for folder in folders):
        if (
            path.exists()
            and subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0
        ):
            return str(path)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13"])
def test_set_up_works_with_each_python_and_is_quick_when_up_to_date(tmp_path, name):
    python = interpreter(name)
    if python is None:
        pytest.skip(f"{name} is not on this machine")
    copy_of_repository(tmp_path)
    done = run(tmp_path, "make", "setup", PYTHON=python)
    assert done.returncode == 0, done.stderr
    done = run(tmp_path, ".venv/bin/python", "-c", "import sys, torch, mlflow, dvc, bentoml; print(sys.version)")
    assert done.stdout.startswith(name.removeprefix("python"))
    pytest_command = (".venv/bin/python", "-m", "pytest", "-q", "-n", "0")
    done = run(tmp_path, *pytest_command, "tests/test_evaluation.py", "tests/test_models.py")
    assert done.returncode == 0, done.stdout
    start = time.perf_counter()
    for choice in ({}, {"PYTHON": python}):
        assert run(tmp_path, "make", "setup", **choice).returncode == 0
    assert time.perf_counter() - start < 4


def test_a_set_up_with_another_python_than_the_named_one_is_not_up_to_date(tmp_path):
    """A stand-in replaces `.venv`: the set-up goes on to the named Python, and refuses it because it is too old."""
    copy_of_repository(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    script = (tmp_path / "tools/setup.sh").read_text()
    (stamp,) = re.findall(r"^stamp=.*$", script, re.MULTILINE)
    run(tmp_path, "bash", "-c", f'{stamp}; echo "$stamp" > .venv/.stamp; mkdir -p .cache; touch .cache/plots.html')
    assert run(tmp_path, "tools/setup.sh").returncode == 0
    done = run(tmp_path, "tools/setup.sh", PYTHON=old_python(tmp_path))
    assert "found: Python 3.9.1" in done.stderr
