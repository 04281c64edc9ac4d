"""The rules of the house, held against the code: which room may use which, and what each DVC stage depends on."""

from __future__ import annotations

import ast
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

PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
SERVING = sorted((ROOT / "serving").rglob("*.py"))

LOOKING = {"pictures", "results"}
MAY_USE = {
    "base": set(),
    "data": {"base"},
    "learning": {"base", "data"},
    "approaches": {"base", "data", "learning"},
    "results": {"base", "data", "learning"},
    "pictures": {"base", "data", "learning", "results"},
    "report": {"base", "data", "learning", "results", "pictures"},
    "tracking": {"base", "learning", "results", "pictures"},
    "packaging": {"base", "data", "learning", "results"},
    "commands": {"base", "data", "learning", "approaches", "results", "packaging", "tracking"},
    "stages": {"base", "data", "learning", "approaches", "results", "pictures", "report", "tracking", "packaging"},
}
"""Which rooms of `pipeline/` the code and the templates of a room may use, beside the room itself."""

ONLY_FILES = {
    ("results", "learning"): {"card.py"},
    ("pictures", "learning"): {"card.py", "classifier.py"},
    ("report", "learning"): {"classifier.py"},
    ("packaging", "learning"): {"classifier.py"},
    ("tracking", "learning"): {"card.py", "learn.py"},
    ("tracking", "pictures"): {"palette.py"},
}
"""Where a room may use these files of another room and no more."""

PLUMBING = {"pipeline/__init__.py", "pipeline/stages/__init__.py"}
"""Beside `base`, what no stage depends on: it cannot change what a stage writes."""


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.exists()), None)


def own_files(path: Path) -> set[Path]:
    """The files of this repository that a file imports."""
    files = {file for name in imported_modules(path) if (file := file_of(name))}
    with_code = {file for file in files if ast.parse(file.read_text()).body[1:]}  # more than a docstring
    return with_code - {ROOT / "pipeline/__init__.py"}


def all_imports(path: Path) -> set[Path]:
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += own_files(file)
    return seen


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "pipeline").parts[0]


def rooms() -> list[Path]:
    return sorted(folder for folder in (ROOT / "pipeline").iterdir() if (folder / "__init__.py").exists())


def test_every_room_says_what_it_is_for_and_stands_in_the_table_and_in_the_map():
    assert {folder.name for folder in rooms()} == MAY_USE.keys()
    assert {path.name for path in (ROOT / "pipeline").glob("*.py")} == {"__init__.py"}, "no module without a room"
    readme = (ROOT / "README.md").read_text()
    for folder in rooms():
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert len(docstring) > 60, folder
        assert f"| `pipeline/{folder.name}/` |" in readme, folder


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: str(path.relative_to(ROOT / "pipeline")))
def test_a_room_uses_only_the_rooms_that_it_may(path):
    room = room_of(path)
    if room == "__init__.py":
        return
    for file in own_files(path):
        if file.parts[len(ROOT.parts)] == "pipeline" and (other := room_of(file)) != room:
            assert other in MAY_USE[room], f"{path} uses {file}"
            allowed = ONLY_FILES.get((room, other))
            assert allowed is None or file.name in allowed, f"{path} uses {file}"


TEMPLATES = [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in {".html", ".md"}]


def test_a_template_is_used_by_its_own_room_alone():
    assert len(TEMPLATES) >= 7
    for template in TEMPLATES:
        users = [path for path in PIPELINE if f'with_name("{template.name}")' in path.read_text()]
        assert all(room_of(path) == room_of(template) for path in users), template
        for name in re.findall(r"{%-? *(?:include|import|from|extends) +\"([^\"]+)", template.read_text()):
            assert (template.parent / name).exists(), f"{template} names {name}, which does not lie beside it"


def test_nothing_of_looking_is_imported_where_something_is_learned():
    learning = [path for path in PIPELINE if room_of(path) in {"learning", "approaches"}]
    for path in learning:
        outside = {name.partition(".")[0] for name in imported_modules(path)}
        assert not outside & {"mlflow", "matplotlib", "jinja2", "onnx", "bentoml"}, path


def test_serving_imports_nothing_of_the_pipeline_and_no_training_library():
    brought_by_bentoml = {"pydantic", "starlette", "prometheus_client", "python_multipart"}
    allowed = {"bentoml", "numpy", "onnxruntime", "PIL", "serving"} | brought_by_bentoml
    for path in SERVING:
        outside = {name.partition(".")[0] for name in imported_modules(path)} - set(sys.stdlib_module_names)
        assert outside <= allowed, path


def test_the_pipeline_imports_nothing_of_serving():
    for path in PIPELINE:
        assert not [name for name in imported_modules(path) if name.startswith("serving")], path


def test_imports_go_one_way():
    for path in PIPELINE + SERVING:
        above = [file for file in own_files(path) - {path} if path in all_imports(file)]
        assert not above, f"{path.name} and {above} import each other"


GENERAL = [path for path in PIPELINE if room_of(path) not in {"approaches", "__init__.py"}] + TEMPLATES
NAMES_ARE_FACTS = {"pipeline/results/known_facts.py", "pipeline/report/report.py", "pipeline/commands/verify.py"}
"""The lecture's figures stand under the names of its models; the ablation and the check of least squares are about one
approach each."""


def test_what_serves_all_models_names_none_and_asks_for_no_class():
    for path in GENERAL:
        if str(path.relative_to(ROOT)) in NAMES_ARE_FACTS or path.parent.name in {"stages", "chapters"}:
            continue
        text = path.read_text()
        assert not re.search(r"isinstance\(\w+, *(LeastSquares|LectureCnn|TransferNet)", text), path
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.Compare):
                compared = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not compared & {"baseline", "cnn", "cnn-lecture", "cnn-tuned", "transfer"}, path


def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def code_in(dependencies: list[str]) -> set[Path]:
    """The Python files of the pipeline that a stage depends on, folders opened."""
    paths = [ROOT / name for name in dependencies if name.startswith("pipeline")]
    assert all(path.exists() for path in paths)
    return {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}


TRAININGS = {name: stage for name, stage in stages().items() if "stages.train " in stage["cmd"]}
LOOKS_AT = {"check", "download", "extract", "evaluate", "draw", "compare", "package", "report"}


def test_the_stages_are_the_lectures_and_known_here():
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
    needed = {file for file in all_imports(ROOT / f"pipeline/stages/{name}.py") if file.parent.name != "base"}
    needed -= {ROOT / file for file in PLUMBING}
    # What a network needs to be trained cannot change what a trained one shows.
    needed -= {file for file in needed if room_of(file) == "learning" and file.name not in {"card.py", "classifier.py"}}
    needed -= code_in(["pipeline/data/dataset.py"])  # reads what `extract` wrote, under its digest
    unlisted = {str(file.relative_to(ROOT)) for file in needed - listed}
    assert unlisted <= {"pipeline/learning/card.py", "pipeline/results/result.py", "pipeline/results/metrics.py",
                        "pipeline/results/known_facts.py", "pipeline/learning/classifier.py"}, unlisted  # fmt: skip


def test_no_list_stands_twice_in_dvc_yaml():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 180
    assert text.count("models/cnn-tuned") == 1, "one stage lists all models"


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
        [sys.executable, "-m", "pipeline.stages.train", "transfer"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors, errors


def test_what_is_not_a_stage_has_a_help_of_its_own():
    """There is a stage called sync, and a command that does its work."""
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; sys.argv[1:] = ['--help']; import pipeline.base.help as h; "
         "sys.modules['__main__'].__spec__ = "
         "__import__('importlib.util').util.find_spec('pipeline.commands.sync'); print(h.stage_help())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("stage", [*sorted(LOOKS_AT), "sync", "train"])
def test_each_stage_tells_what_it_reads_writes_and_which_params_it_uses(stage):
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.stages.{stage}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.match(r"Stages? `", done.stdout)
    for name in TRAININGS if stage == "train" else [stage]:
        assert f"dvc repro {name}" in done.stdout
    for word in ("reads:", "writes:", "params, in params.yaml:"):
        assert word in done.stdout
