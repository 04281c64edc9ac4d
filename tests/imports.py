"""What the files of the pipeline and of the service import."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
SERVING = sorted((ROOT / "serving").rglob("*.py"))


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
