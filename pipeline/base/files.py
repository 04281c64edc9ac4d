"""Reading, writing and hashing files. A file gets its name only when it is complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.errors import PipelineError

CIFAR10, DATASET = Path("data/cifar10"), Path("data/dataset")
MODELS, CHAMPION, BENTO = Path("models"), Path("models/champion"), Path("models/champion.bento")
REPORTS, METRICS, FIGURES = Path("reports"), Path("reports/metrics"), Path("reports/figures")
RESULTS = REPORTS / "results.json"
"""The paths that one stage writes and others read; dvc.yaml names the same paths."""

FULL_DISK_BYTES = 1 << 20
"""If a write fails with less free space than this, the disk counts as full: each library has its own error for that."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. When the block succeeds, the file there is synced and renamed to `path`.

    On any exception the temporary file is removed, and an older file at `path` stays.

    Raises:
        PipelineError: the write failed because the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each path has only one temporary name, so that the next write overwrites the leftover of a killed process. The
    # suffix stays, because some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, Exception) and shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:
            raise PipelineError(f"{path}: the disk is full; free some space and run again") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_files(paths: list[Path], root: Path) -> str:
    """SHA-256 over the names (relative to `root`) and digests of files, whatever the order of `paths`."""
    lines = sorted(f"{path.relative_to(root)} {sha256_of(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN and infinity raise ValueError, because JSON has neither."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str = "dvc repro") -> Any:
    """Read the JSON value in `path`.

    Raises:
        PipelineError: the file is missing or damaged; the message names the file and the command that makes it.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: `{made_by}` makes it") from None
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise PipelineError(f"{path} is damaged ({error}): delete it and run `{made_by}`") from None
