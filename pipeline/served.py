"""The service as its clients see it: started as a user does, asked over HTTP."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import PipelineError

IMAGES_PER_REQUEST = 64
SECONDS_TO_START = 60


@contextmanager
def serving() -> Iterator[str]:
    """`bentoml serve` in the current folder while the block runs, on a free port; yields its address.

    Raises:
        PipelineError: it ended, or is not ready within a minute.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CAR_OR_TRUCK_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=environment | {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + SECONDS_TO_START
            while not _ready(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = (log.read().strip().splitlines() or ["it says nothing"])[-1]
                    raise PipelineError(f"`bentoml serve` does not start: {last}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _ready(address: str) -> bool:
    try:
        return requests.get(f"{address}/readyz", timeout=2).ok
    except requests.RequestException:
        return False


def classify(address: str, images: NDArray[np.uint8]) -> list[dict[str, float]]:
    """What the service says of images uint8 `[N, 32, 32, 3]`, sent as PNG files: the probability of each class.

    Raises:
        PipelineError: it refuses a request.
    """
    found: list[dict[str, float]] = []
    with requests.Session() as session:
        for start in range(0, len(images), IMAGES_PER_REQUEST):
            files = [("images", ("image.png", _png(image))) for image in images[start : start + IMAGES_PER_REQUEST]]
            answer = session.post(f"{address}/predict", files=files, timeout=120)
            if not answer.ok:
                raise PipelineError(f"the service answered {answer.status_code}: {answer.text[:200]}")
            for prediction in answer.json()["predictions"]:
                if prediction["label"] != max(prediction["probabilities"], key=prediction["probabilities"].get):
                    raise PipelineError(f"the service's label is not its likelier class: {prediction}")
                found.append(prediction["probabilities"])
    return found


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
