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


def test_sentences_are_plain():
    stumbles = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(PROSE)
        if path.name != "test_prose.py" and str(path.relative_to(ROOT)) not in GENERATED
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if STUMBLED_OVER.search(line)
    ]
    assert not stumbles


def test_variables_say_what_they_hold():
    unclear = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.id}"
        for path in sorted(CODE)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in UNCLEAR_NAMES
    ]
    assert not unclear


@pytest.mark.parametrize(
    "line", ['"""{} the steps before, the loss has told."""', "# {} it is named", "It ends. {} it"]
)
def test_a_sentence_that_must_be_read_twice_is_noticed(line):
    """The words are put in here, so that no search for them finds this file."""
    for word in ("O" + "f", "By" + " what"):
        assert STUMBLED_OVER.search(line.format(word))
    assert STUMBLED_OVER.search("The body is" + " no JSON")


@pytest.mark.parametrize("line", ["It is no longer there.", "Of course it is.", "a list of them", "is not a list"])
def test_a_plain_sentence_passes(line):
    assert not STUMBLED_OVER.search(line)
