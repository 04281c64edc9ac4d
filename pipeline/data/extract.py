"""Make the dataset from the record files: the images of two classes in three splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import PipelineError
from pipeline.base.params import CIFAR10_CLASSES, DataParams
from pipeline.data.dataset import COLUMNS, Dataset, dataset_digest
from pipeline.data.records import read_records


def extract(records: dict[Path, str], params: DataParams, seed: int) -> Dataset:
    """Take the two classes out of the record files and split them.

    Args:
        records: the record files and their SHA-256, in official order; test_batch.bin is the test split.

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
    """The sort key of a column: batches in the order of the official files (test last), rows unchanged."""
    return column.str.replace("test_batch", "data_batch_9") if column.name == "batch" else column


def _check_counts(manifest: pd.DataFrame, params: DataParams) -> None:
    for split, expected in params.images_per_class.model_dump().items():
        for label, name in enumerate(params.classes):
            count = int(((manifest["split"] == split) & (manifest["label"] == label)).sum())
            if count != expected:
                raise PipelineError(
                    f"the record files hold {count} {split} images of {name}, "
                    f"expected {expected} (data.images_per_class)"
                )


def _validation_rows(manifest: pd.DataFrame, share: float, seed: int) -> NDArray[np.int64]:
    """Draw rows at random from the training images, the same share of each class."""
    random = np.random.default_rng(seed)
    drawn = []
    for label in (0, 1):
        rows = np.flatnonzero((manifest["split"] == "train") & (manifest["label"] == label))
        drawn.append(random.choice(rows, size=round(share * len(rows)), replace=False))
    return np.concatenate(drawn)
