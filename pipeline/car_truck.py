"""The dataset: the images of two classes as one uint8 array, a pandas manifest beside it, three splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cifar10 import read_records
from pipeline.errors import PipelineError
from pipeline.files import atomic, read_json, write_json
from pipeline.params import CIFAR10_CLASSES, DataParams

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDER = Path("data/car_truck")
COLUMNS = ("id", "batch", "row", "class_name", "label", "split")


@dataclass(frozen=True)
class Dataset:
    """Two classes of CIFAR-10.

    Attributes:
        images: uint8 `[N, 32, 32, 3]`, RGB.
        manifest: one row an image, in the order of `images`: id (a number of its own), batch (official file, without
            its ending) and row (position in that file), class_name, label (0 or 1), split.
        classes: CIFAR-10's own names of the two classes, label 0 first.
        class_names: what they are called here.
        digest: SHA-256 over pixels and labels.
    """

    images: NDArray[np.uint8]
    manifest: pd.DataFrame
    classes: list[str]
    class_names: list[str]
    digest: str

    @property
    def split_digest(self) -> str:
        """SHA-256 over which image is in which split."""
        return hashlib.sha256(",".join(self.manifest["split"]).encode()).hexdigest()

    def rows(self, split: Split) -> NDArray[np.int64]:
        """The positions, int64 `[n]`, of a split's images."""
        return np.flatnonzero((self.manifest["split"] == split).to_numpy())

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 `[N]`, 0 or 1."""
        return self.manifest["label"].to_numpy(np.int64)


def extract(records: dict[Path, str], params: DataParams, seed: int) -> Dataset:
    """Take the two classes out of the record files and split them.

    Args:
        records: the record files and their SHA-256, in official order; the file called test_batch is the test split.

    Raises:
        PipelineError: a record file is damaged, or holds a wrong number of images of a class.
    """
    images, parts = [], []
    for path, digest in records.items():
        official_labels, batch_images = read_records(path, digest)
        for label, name in enumerate(params.classes):
            rows = np.flatnonzero(official_labels == CIFAR10_CLASSES.index(name))
            images.append(batch_images[rows])
            parts.append(pd.DataFrame({"batch": path.stem, "row": rows, "label": label}))
    manifest = pd.concat(parts, ignore_index=True)
    order = manifest.sort_values(["batch", "row"], key=_official_order).index.to_numpy()
    manifest = manifest.loc[order].reset_index(drop=True)
    pixels = np.concatenate(images)[order]

    manifest["split"] = np.where(manifest["batch"] == "test_batch", "test", "train")
    _check_counts(manifest, params)
    manifest.loc[_validation_rows(manifest, params.validation_share, seed), "split"] = "validation"
    manifest["class_name"] = manifest["label"].map(dict(enumerate(params.class_names)))
    manifest["id"] = np.arange(len(manifest))
    labels = manifest["label"].to_numpy(np.uint8)
    digest = dataset_digest(pixels, labels)
    return Dataset(pixels, manifest[list(COLUMNS)], params.classes, params.class_names, digest)


def _official_order(column: pd.Series) -> pd.Series:
    """Sort key: batches as the official files count them (test last), rows as they are."""
    return column.str.replace("test_batch", "data_batch_9") if column.name == "batch" else column


def _check_counts(manifest: pd.DataFrame, params: DataParams) -> None:
    for split, expected in params.images_per_class.model_dump().items():
        for label, name in enumerate(params.classes):
            found = int(((manifest["split"] == split) & (manifest["label"] == label)).sum())
            if found != expected:
                raise PipelineError(
                    f"the record files hold {found} {split} images of {name}, "
                    f"expected {expected} (data.images_per_class)"
                )


def _validation_rows(manifest: pd.DataFrame, share: float, seed: int) -> NDArray[np.int64]:
    """Rows drawn from the training images, equally many of each class."""
    random = np.random.default_rng(seed)
    drawn = []
    for label in (0, 1):
        rows = np.flatnonzero((manifest["split"] == "train") & (manifest["label"] == label))
        drawn.append(random.choice(rows, size=round(share * len(rows)), replace=False))
    return np.concatenate(drawn)


def dataset_digest(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """SHA-256 over the pixels uint8 `[N, 32, 32, 3]`, then the labels uint8 `[N]`."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes() + labels.tobytes()).hexdigest()


def save(dataset: Dataset, folder: Path = FOLDER) -> None:
    """Write images.npy, manifest.parquet and dataset.json."""
    with atomic(folder / "images.npy") as temporary:
        np.save(temporary, dataset.images)
    with atomic(folder / "manifest.parquet") as temporary:
        dataset.manifest.to_parquet(temporary, index=False)
    counts = dataset.manifest.groupby(["split", "class_name"]).size()
    summary = {split: {name: int(counts.get((split, name), 0)) for name in dataset.class_names} for split in SPLITS}
    description: dict[str, Any] = {"digest": dataset.digest, "split_digest": dataset.split_digest}
    description |= {"classes": dataset.classes, "class_names": dataset.class_names, "images": summary}
    write_json(folder / "dataset.json", description)


def load(folder: Path = FOLDER) -> Dataset:
    """Read what `save` wrote; the images are memory-mapped.

    Raises:
        PipelineError: a file is missing or damaged, or the files do not belong together; the message names it.
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
