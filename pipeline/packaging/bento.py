"""The Bento: the service and the champion in one file, which can be served on any machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.base.errors import PipelineError
from pipeline.base.files import CHAMPION, atomic

PARTS = (Path("pyproject.toml"), Path("serving"), CHAMPION)
"""The files and folders that `bentoml build` reads."""


def build_bento(path: Path) -> None:
    """Run `bentoml build` (its settings are in pyproject.toml) with a temporary store, and export the Bento to `path`.

    Raises:
        PipelineError: bentoml failed; the message has the last line of its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # DVC's experiments run in a hidden folder, which bentoml refuses to read. So the Bento is built from a copy.
        source, home = Path(scratch) / "source", Path(scratch) / "home"
        for part in PARTS:
            copy = shutil.copytree if part.is_dir() else shutil.copy2
            (source / part).parent.mkdir(parents=True, exist_ok=True)
            copy(part, source / part)
        tag = _bentoml("build", "--output", "tag", home=home, cwd=source).strip().removeprefix("__tag__:")
        with atomic(path) as temporary:
            exported = Path(scratch) / f"exported{path.suffix}"
            _bentoml("export", tag, str(exported), home=home, cwd=source)
            temporary.write_bytes(exported.read_bytes())


def _bentoml(*arguments: str, home: Path, cwd: Path) -> str:
    """Run a bentoml command with its store under `home`, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise PipelineError(f"bentoml {arguments[0]} failed: {lines[-1]}")
    return done.stdout
