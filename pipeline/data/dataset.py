"""The dataset: the images of two classes as one uint8 array, a pandas manifest beside it, three splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import PipelineError
from pipeline.base.files import DATASET, atomic, read_json, write_json

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
COLUMNS = ("id", "batch", "row", "class_name", "label", "split")


@dataclass(frozen=True)
class Dataset:
    """Two classes of CIFAR-10.

    Attributes:
        images: uint8 `[N, 32, 32, 3]`, RGB.
        manifest: one row per image, in the order of `images`: id (its position), batch (the official file, without
            its ending), row (the position in that file), class_name, label (0 or 1), split.
        classes: CIFAR-10's own names of the two classes, label 0 first.
        class_names: the names that people see, label 0 first.
        digest: SHA-256 over pixels and labels.
    """

    images: NDArray[np.uint8]
    manifest: pd.DataFrame
    classes: list[str]
    class_names: list[str]
    digest: str

    @property
    def split_digest(self) -> str:
        """SHA-256 over the splits of the images, in order."""
        return hashlib.sha256(",".join(self.manifest["split"]).encode()).hexdigest()

    def rows(self, split: Split) -> NDArray[np.int64]:
        """The positions of a split's images, int64 `[n]`."""
        return np.flatnonzero((self.manifest["split"] == split).to_numpy())

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels, int64 `[N]`, 0 or 1."""
        return self.manifest["label"].to_numpy(np.int64)


def dataset_digest(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """SHA-256 over the pixels uint8 `[N, 32, 32, 3]`, then the labels uint8 `[N]`."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes() + labels.tobytes()).hexdigest()


def save(dataset: Dataset, folder: Path = DATASET) -> None:
    """Write images.npy, manifest.parquet and dataset.json into `folder`."""
    with atomic(folder / "images.npy") as temporary:
        np.save(temporary, dataset.images)
    with atomic(folder / "manifest.parquet") as temporary:
        dataset.manifest.to_parquet(temporary, index=False)
    counts = dataset.manifest.groupby(["split", "class_name"]).size()
    summary = {split: {name: int(counts.get((split, name), 0)) for name in dataset.class_names} for split in SPLITS}
    description: dict[str, Any] = {"digest": dataset.digest, "split_digest": dataset.split_digest}
    description |= {"classes": dataset.classes, "class_names": dataset.class_names, "images": summary}
    write_json(folder / "dataset.json", description)


def load(folder: Path = DATASET) -> Dataset:
    """Read the files that `save` wrote; the images are memory-mapped.

    Raises:
        PipelineError: a file is missing or damaged, or the files do not belong together; the message says which.
    """
    description = read_json(folder / "dataset.json")
    images_path, manifest_path = folder / "images.npy", folder / "manifest.parquet"
    try:
        images = np.load(images_path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise PipelineError(f"{images_path} is missing or damaged ({error}): run `dvc repro extract`") from None
    try:
        manifest = pd.read_parquet(manifest_path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"{manifest_path} is missing or damaged ({error}): run `dvc repro extract`") from None
    if tuple(manifest.columns) != COLUMNS or images.shape != (len(manifest), 32, 32, 3) or images.dtype != np.uint8:
        raise PipelineError(f"{images_path} and {manifest_path} do not belong together: run `dvc repro -f extract`")
    digest = dataset_digest(images, manifest["label"].to_numpy(np.uint8))
    dataset = Dataset(images, manifest, description["classes"], description["class_names"], digest)
    if (dataset.digest, dataset.split_digest) != (description["digest"], description["split_digest"]):
        raise PipelineError(f"{folder} is damaged: its digest is not that of dataset.json; run `dvc repro -f extract`")
    return dataset
