"""Starting the service as a user does, and asking it over HTTP as a client does."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import requests
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import PipelineError

IMAGES_PER_REQUEST = 64
SECONDS_TO_START = 120


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: str,
    environment: dict[str, str],
    *,
    folder: Path = Path(),
    expected: int = 200,
) -> Iterator[float]:
    """Run a server while the block runs. Yields the seconds from its start until the address `ready` answered.

    Args:
        environment: all environment variables of the server.
        folder: the folder that the server starts in.
        expected: the status code of the answer.

    Raises:
        PipelineError: the server ended, or was not ready within two minutes; the message has its last line of output.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            while not _answers(ready, expected):
                if process.poll() is not None or time.perf_counter() - start > SECONDS_TO_START:
                    log.seek(0)
                    last = (log.read().strip().splitlines() or ["it printed nothing"])[-1]
                    raise PipelineError(f"`{Path(command[0]).name} {command[1]}` does not start: {last}")
                time.sleep(0.02)
            yield time.perf_counter() - start
        finally:
            _end(process)


def _answers(address: str, status: int) -> bool:
    try:
        return requests.get(address, timeout=2).status_code == status
    except requests.RequestException:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, wait up to half a minute, then kill it and its child processes."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(home: str) -> dict[str, str]:
    """The environment variables for a service with default settings and its own BentoML store in `home`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CAR_OR_TRUCK_", "BENTOML_"))}
    return clean | {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}


@contextmanager
def serving() -> Iterator[str]:
    """Run `bentoml serve` in the current folder on a free port while the block runs. Yields its address.

    Raises:
        PipelineError: the service does not start.
    """
    port = free_port()
    bentoml = str(Path(sys.executable).parent / "bentoml")
    command = [bentoml, "serve", "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as home, running(command, f"{address}/readyz", environment(home)):
        yield address


def classify(address: str, images: NDArray[np.uint8]) -> list[dict[str, float]]:
    """The service's probability of each class, for images uint8 `[N, 32, 32, 3]` that are sent as PNG files.

    Raises:
        PipelineError: the service refuses a request, or an answer contradicts itself.
    """
    answers: list[dict[str, float]] = []
    with requests.Session() as session:
        for start in range(0, len(images), IMAGES_PER_REQUEST):
            files = [("images", ("image.png", png(image))) for image in images[start : start + IMAGES_PER_REQUEST]]
            answer = session.post(f"{address}/predict", files=files, timeout=120)
            if not answer.ok:
                raise PipelineError(f"the service answered {answer.status_code}: {answer.text[:200]}")
            for prediction in answer.json()["predictions"]:
                if prediction["label"] != max(prediction["probabilities"], key=prediction["probabilities"].get):
                    raise PipelineError(f"the service's label is not the likelier class: {prediction}")
                answers.append(prediction["probabilities"])
    return answers


def png(image: NDArray[np.uint8]) -> bytes:
    """An image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
