"""Binary records, the canonical form of CIFAR-10.

A record is 1 label byte and 3,072 pixel bytes (1,024 red, 1,024 green, 1,024 blue, row-major). An official file holds
10,000 records (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PipelineError
from pipeline.base.files import sha256_of

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE
RECORD_BYTES = 1 + PIXEL_BYTES


def records_of(labels: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of records, from labels uint8 `[N]` and pixels uint8 `[N, 3072]` (red, green, blue planes)."""
    return np.concatenate([labels[:, None], pixels], axis=1).tobytes()


def read_records(path: Path, digest: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the labels uint8 `[N]` and the images uint8 `[N, 32, 32, 3]` of a record file.

    Raises:
        PipelineError: the file is missing, its SHA-256 is not `digest`, or it does not hold whole records.
    """
    if not path.exists():
        raise PipelineError(f"{path} is missing: `dvc repro` fetches it")
    if sha256_of(path) != digest:
        raise PipelineError(f"{path} is damaged (its SHA-256 is not {digest[:12]}…): delete it and run `dvc repro`")
    data = np.fromfile(path, np.uint8)
    if data.size % RECORD_BYTES:
        raise PipelineError(f"{path} does not hold whole records of {RECORD_BYTES} bytes")
    records = data.reshape(-1, RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return records[:, 0].copy(), np.ascontiguousarray(images)
