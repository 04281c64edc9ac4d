"""The version of the code and the params that make a result."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

MAKERS = ("pipeline", "serving", "params.yaml", "dvc.yaml", "pyproject.toml", "requirements.lock")
"""A result depends on these. Files that DVC itself rewrites (dvc.lock, metrics, leaderboard) do not count."""


@dataclass(frozen=True)
class CodeVersion:
    """A git commit, and whether code or params differ from it. Both are None outside a git checkout."""

    commit: str | None
    changed: bool | None


def code_version() -> CodeVersion:
    """The version of the code in the current folder."""
    commit, top = _git("rev-parse", "HEAD"), _git("rev-parse", "--show-toplevel")
    if commit is None or top is None or Path(top) != Path.cwd():  # no git, or another project's checkout
        return CodeVersion(None, None)
    changes = _git("status", "--porcelain", "--", *MAKERS)
    return CodeVersion(commit, changes != "")


def _git(*arguments: str) -> str | None:
    """The output of a git command; None if git is missing or the command fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
