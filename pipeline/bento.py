"""The Bento: the service and the champion in one file that serves anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import atomic


def build_bento(path: Path) -> None:
    """Run `bentoml build` (its settings are in pyproject.toml) in a store of its own, and export the Bento to `path`.

    Raises:
        PipelineError: bentoml refused; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as home:
        tag = _bentoml("build", "--output", "tag", home=home).strip().removeprefix("__tag__:")
        with atomic(path) as temporary:
            exported = Path(home) / f"exported{path.suffix}"
            _bentoml("export", tag, str(exported), home=home)
            temporary.write_bytes(exported.read_bytes())


def _bentoml(*arguments: str, home: str) -> str:
    """What a bentoml command prints, with its store under `home`."""
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        env=os.environ | {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise PipelineError(f"bentoml {arguments[0]} failed: {lines[-1]}")
    return done.stdout
