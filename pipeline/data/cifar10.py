"""CIFAR-10 from any of its sources to its canonical form: six verified record files.

An archive is opened only after its SHA-256 matched. Its members are picked by exact name. Pickles go through an
unpickler that can build numpy arrays and nothing else.
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
    """Make `folder` hold the six record files, verified; files that are there already are verified and kept.

    Args:
        own_archive: an archive that the user has; when given it is the only source.
        cache: where partial downloads wait to be resumed.

    Raises:
        PipelineError: one line per source saying why it gave nothing.
    """
    for stray in folder.glob(".*"):  # what a killed process left half-written
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
        "\n".join(["no source gave CIFAR-10 (CIFAR10_ARCHIVE=/path/to/archive uses your own):", *failures])
    )


def _is_verified(path: Path, digest: str) -> bool:
    if not path.exists():
        return False
    if sha256_of(path) == digest:
        return True
    print(f"{path} is damaged (its SHA-256 is not {digest[:12]}…): fetching it anew")
    return False


def _format_of(archive: Path, params: DownloadParams) -> str:
    """The format of the user's own archive, known by its digest among the sources'."""
    if not archive.is_file():
        raise PipelineError(f"CIFAR10_ARCHIVE={archive}: there is no such file")
    digest = sha256_of(archive)
    for source in params.sources:
        if source.sha256 == digest:
            return source.format
    raise PipelineError(f"CIFAR10_ARCHIVE={archive}: its SHA-256 {digest[:12]}… is none of the sources' in params.yaml")


def _convert(archive: Path, format: str, folder: Path, params: DownloadParams) -> None:
    """Write the record files out of a verified archive; each is checked against its digest before it gets its name."""
    print(f"converting {archive.name} ({format}) to record files", flush=True)
    reader = {"binary_archive": _read_binary, "python_archive": _read_python, "npm_package": _read_npm}[format]
    with tarfile.open(archive) as tar:
        for name, records in reader(tar, list(params.record_files)):
            with atomic(folder / name) as temporary:
                temporary.write_bytes(records)
                if sha256_of(temporary) != params.record_files[name]:
                    raise SourceFailed(f"{name} made from it is not the official one")


def _read_binary(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The official binary version: the record files themselves."""
    for name in names:
        yield name, _member(tar, f"cifar-10-batches-bin/{name}")


def _read_python(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The official python version: a pickled dictionary for each batch, pixels already channel by channel."""
    for name in names:
        batch = _ArraysOnly(io.BytesIO(_member(tar, f"cifar-10-batches-py/{Path(name).stem}")), encoding="bytes").load()
        yield name, records_of(np.asarray(batch[b"labels"], np.uint8), batch[b"data"])


def _read_npm(tar: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The npm package: a PNG for each batch, a row an image (row-major RGB); labels as JSON, its names spelled so."""
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
    """The bytes of the regular file that is called exactly `name`; links and folders do not count."""
    try:
        member = tar.getmember(name)
    except KeyError:
        raise SourceFailed(f"{name} is not in the archive") from None
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        raise SourceFailed(f"{name} in the archive is not a regular file")
    return file.read()


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and Python's own containers; every other global is refused."""

    ALLOWED = frozenset(
        (module, name)
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("dtype", "ndarray", "_reconstruct")
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise SourceFailed(f"a pickle asked for {module}.{name}: refused")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
