"""The rules of the house, held against the code: who may import whom, and what each DVC stage depends on."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
SERVING = sorted((ROOT / "serving").rglob("*.py"))
PLUMBING = {
    "pipeline/__init__.py",
    "pipeline/stages/__init__.py",
    "pipeline/errors.py",
    "pipeline/help.py",
    "pipeline/files.py",
    "pipeline/params.py",
}


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_files(path: Path) -> set[Path]:
    """The files of this repository that a file imports."""
    found = (ROOT / f"{name.replace('.', '/')}.py" for name in imported_modules(path))
    return {file for file in found if file.exists()}


def all_imports(path: Path) -> set[Path]:
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += own_files(file)
    return seen


def test_only_the_sweep_imports_a_stage():
    for path in PIPELINE + SERVING:
        if path.name == "sweep.py":
            continue
        stages = {file for file in own_files(path) if file.parent.name == "stages"}
        assert not stages - {path}, f"{path.name} imports {stages}"


def test_serving_imports_nothing_of_the_pipeline_and_no_training_library():
    brought_by_bentoml = {"pydantic", "starlette", "prometheus_client", "python_multipart"}
    allowed = {"bentoml", "numpy", "onnxruntime", "PIL", "serving"} | brought_by_bentoml
    for path in SERVING:
        outside = {name.partition(".")[0] for name in imported_modules(path)} - set(
            __import__("sys").stdlib_module_names
        )
        assert outside <= allowed, path


def test_the_pipeline_imports_nothing_of_serving():
    for path in PIPELINE:
        assert not [name for name in imported_modules(path) if name.startswith("serving")], path


def test_imports_go_one_way():
    for path in PIPELINE + SERVING:
        above = [file for file in own_files(path) - {path} if path in all_imports(file)]
        assert not above, f"{path.name} and {above} import each other"


def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_all_the_code_it_imports(name):
    stage = stages()[name]
    if stage.get("always_changed"):
        return  # runs whatever has changed
    module = stage["cmd"].split()[2]
    needed = {str(file.relative_to(ROOT)) for file in all_imports(ROOT / f"{module.replace('.', '/')}.py")} - PLUMBING
    listed = {dep for dep in stage["deps"] if dep.endswith(".py") and not dep.startswith("serving")} - PLUMBING
    assert listed == needed


@pytest.mark.parametrize(
    "path", [path for path in PIPELINE if path.parent.name == "stages"], ids=lambda path: path.name
)
def test_a_stage_is_read_in_a_minute(path):
    assert len(path.read_text().splitlines()) <= 100


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DO_SOMETHING = {"pipeline/__init__.py", "serving/service.py"}
"""The two modules that do something when they are imported; each says why."""


def test_importing_a_module_does_nothing():
    """At the top there are definitions, and constants made by calls of no effect."""
    others = [path for folder in ("benchmarks", "tools") for path in sorted((ROOT / folder).glob("*.py"))]
    for path in PIPELINE + SERVING + others:
        if str(path.relative_to(ROOT)) in DO_SOMETHING:
            continue
        for node in ast.parse(path.read_text()).body:
            is_main = isinstance(node, ast.If) and ast.unparse(node.test) in {"__name__ == '__main__'", "TYPE_CHECKING"}
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            defines = isinstance(
                node, (*FUNCTIONS, ast.Import, ast.ImportFrom, ast.ClassDef, ast.Assign, ast.AnnAssign)
            )
            assert defines or text or is_main, f"{path}, line {node.lineno}: {ast.unparse(node)}"


LONGEST_FUNCTION, LONGEST_FILE = 55, 300


def test_no_file_and_no_function_is_longer_than_a_reader_holds():
    others = [path for folder in ("benchmarks", "tests", "tools") for path in (ROOT / folder).glob("*.py")]
    for path in PIPELINE + SERVING + others:
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, path
        if path == ROOT / "tests/hostile.py":
            continue  # a list of bad requests, one after the other
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, FUNCTIONS):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_ctrl_c_while_a_stage_imports_its_libraries_is_no_traceback(tmp_path, seconds):
    """In a folder without params.yaml: should the imports end before the signal, the stage ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.stages.transfer"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors, errors


def test_what_is_no_stage_has_a_help_of_its_own():
    """There is a stage called sync, and a command that does its work."""
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; sys.argv[1:] = ['--help']; import pipeline.help as h; "
         "sys.modules['__main__'].__spec__ = __import__('importlib.util').util.find_spec('pipeline.sync'); "
         "print(h.stage_help())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("stage", stages())
def test_each_stage_tells_what_it_reads_writes_and_which_params_it_uses(stage):
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.stages.{stage}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"Stage `{stage}`: ")
    for word in (f"dvc repro {stage}", "reads:", "writes:", "params, in params.yaml:"):
        assert word in done.stdout
