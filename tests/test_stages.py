"""Each DVC stage depends on the code that it runs, is short, and explains itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.learning.key import code_of
from tests.conftest import ROOT
from tests.imports import PIPELINE, all_imports, file_of, room_of

PLUMBING = {"pipeline/__init__.py", "pipeline/stages/__init__.py"}
"""No stage depends on these files, nor on `base`: they cannot change what a stage writes."""


def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def code_in(dependencies: list[str]) -> set[Path]:
    """The Python files of the pipeline that a stage depends on, folders opened."""
    paths = [ROOT / name for name in dependencies if name.startswith("pipeline")]
    assert all(path.exists() for path in paths)
    return {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}


TRAININGS = {name: stage for name, stage in stages().items() if "stages.train " in stage["cmd"]}
LOOKS_AT = {"check", "download", "extract", "evaluate", "draw", "compare", "package", "report"}


def test_dvc_yaml_has_just_the_stages_that_these_tests_know():
    assert list(TRAININGS) == ["baseline", "cnn", "transfer"]
    assert stages().keys() == LOOKS_AT | TRAININGS.keys() | {"sync"}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_depends_on_just_the_code_of_its_key(name):
    module = TRAININGS[name]["cmd"].split()[3]
    listed = [dep for dep in TRAININGS[name]["deps"] if dep.startswith("pipeline")]
    assert listed == [f"pipeline/{path}" for path in reversed(code_of(module)[:-1])] + [
        f"pipeline/{code_of(module)[-1]}"
    ]
    assert ".cache/libraries.json" in TRAININGS[name]["deps"]
    needed = {file for file in all_imports(file_of(f"pipeline.approaches.{module}")) if room_of(file) != "base"}
    assert needed <= code_in(listed), "it imports more than it depends on"


@pytest.mark.parametrize("name", sorted(LOOKS_AT))
def test_every_other_stage_depends_on_the_code_that_it_imports(name):
    listed = code_in(stages()[name]["deps"])
    imported = all_imports(ROOT / f"pipeline/stages/{name}.py")
    needed = {file for file in imported if file.parent.name != "base"}
    needed -= {ROOT / file for file in PLUMBING}
    # What only a training needs cannot change what a trained network shows.
    needed -= {file for file in needed if room_of(file) == "learning" and file.name not in {"card.py", "classifier.py"}}
    needed -= code_in(["pipeline/data/dataset.py"])  # it reads what `extract` wrote, and checks the digest
    assert needed <= listed, needed - listed
    single = {ROOT / dep for dep in stages()[name]["deps"] if dep.startswith("pipeline") and dep.endswith(".py")}
    assert single <= imported, "it depends on a file that it does not use"


def test_no_list_stands_twice_in_dvc_yaml():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 180
    assert text.count("models/cnn-tuned") == 1, "one stage lists all models"
    lists = [
        tuple(stage[key]) for stage in stages().values() for key in ("deps", "outs") if len(stage.get(key, ())) > 1
    ]
    code = [tuple(dep for dep in each if isinstance(dep, str) and dep.startswith("pipeline/")) for each in lists]
    longer = [each for each in code if len(each) > 3]
    assert len(set(longer)) == len(longer)


@pytest.mark.parametrize(
    "path", [path for path in PIPELINE if path.parent.name == "stages"], ids=lambda path: path.name
)
def test_a_stage_has_at_most_100_lines(path):
    assert len(path.read_text().splitlines()) <= 100


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_ctrl_c_while_a_stage_imports_its_libraries_prints_no_traceback(tmp_path, seconds):
    """The folder has no params.yaml: if the imports end before the signal, the stage ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.stages.train", "transfer"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors, errors


def test_a_command_does_not_show_the_help_of_a_stage():
    """A stage is called sync, and so is a command; the command has a help of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; sys.argv[1:] = ['--help']; import pipeline.base.help as h; "
         "sys.modules['__main__'].__spec__ = "
         "__import__('importlib.util').util.find_spec('pipeline.commands.sync'); print(h.stage_help())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("stage", [*sorted(LOOKS_AT), "sync", "train"])
def test_each_stage_says_what_it_reads_and_writes_and_which_params_it_uses(stage):
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.stages.{stage}", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.match(r"Stages? `", done.stdout)
    for name in TRAININGS if stage == "train" else [stage]:
        assert f"dvc repro {name}" in done.stdout
    for word in ("reads:", "writes:", "params, in params.yaml:"):
        assert word in done.stdout
