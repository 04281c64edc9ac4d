"""Plain English in everything that a person reads, and names of variables that say what they hold."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

CODE = [
    path for folder in ("pipeline", "serving", "benchmarks", "tests", "tools") for path in (ROOT / folder).rglob("*.py")
]
PROSE = [*CODE, *(ROOT / "docs").glob("*.md"), *(ROOT / "serving/web").glob("*.[hj]*")]
PROSE += [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in {".html", ".md"}]
PROSE += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "params.yaml", "dvc.yaml", "Makefile")]
GENERATED = {"docs/cat-dog.md", "docs/lite2.md"}
STUMBLED_OVER = re.compile(
    r"\b(?:is|are|was|were) no (?!longer|more|later|one\b|match)"
    r"|(?:^\s*|[.:;] +|\"\"\"|# )(?:Of (?!course)[a-z]|By what )"
)
UNCLEAR_NAMES = {"told", "said", "asked", "now", "found"}


@pytest.mark.parametrize("path", sorted(PROSE), ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_plain(path):
    if path.name == "test_prose.py" or str(path.relative_to(ROOT)) in GENERATED:
        return
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        assert not STUMBLED_OVER.search(line), f"line {number}: {line.strip()}"


@pytest.mark.parametrize("path", sorted(CODE), ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_say_what_they_hold(path):
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert not names & UNCLEAR_NAMES
