"""The code keeps the rules of the house: which room may use which, and how long a file may be."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.imports import PIPELINE, SERVING, all_imports, imported_modules, own_files, room_of

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
"""The first room may use only these files of the second."""


def rooms() -> list[Path]:
    return sorted(folder for folder in (ROOT / "pipeline").iterdir() if (folder / "__init__.py").exists())


def test_every_room_says_what_it_is_for_and_is_in_the_table_and_the_map():
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


def test_learning_imports_no_library_of_tracking_pictures_or_serving():
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
"""Files that may name a model: one has the lecture's figures by model, the others have a part about one approach."""


def test_code_for_all_models_compares_with_no_name_and_no_class():
    for path in GENERAL:
        if str(path.relative_to(ROOT)) in NAMES_ARE_FACTS or path.parent.name in {"stages", "chapters"}:
            continue
        text = path.read_text()
        assert not re.search(r"isinstance\(\w+, *(LeastSquares|LectureCnn|TransferNet)", text), path
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.Compare):
                compared = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not compared & {"baseline", "cnn", "cnn-lecture", "cnn-tuned", "transfer"}, path


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DO_SOMETHING = {"pipeline/__init__.py", "serving/service.py"}
"""These two modules do something when they are imported; each says why."""


def test_a_module_holds_only_imports_definitions_and_constants():
    """So importing a module does nothing else."""
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


def test_no_file_and_no_function_is_too_long():
    others = [path for folder in ("benchmarks", "tests", "tools") for path in (ROOT / folder).glob("*.py")]
    for path in PIPELINE + SERVING + others:
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, path
        if path == ROOT / "tests/hostile.py":
            continue  # a list of bad requests, one after the other
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, FUNCTIONS):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"
