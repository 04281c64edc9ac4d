"""`bentoml serve` as a user starts it, and requests to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests

BIN = Path(sys.executable).parent


def kill_all(pid: int) -> None:
    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        process.send_signal(signal.SIGKILL)


class Serving:
    """`bentoml serve` while the block runs; yields its address once it is ready."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.port = folder, free_port()
        self.url, self.environment = f"http://127.0.0.1:{self.port}", environment | {"BENTOML_PORT": str(self.port)}

    def __enter__(self) -> str:
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [BIN / "bentoml", "serve"], cwd=self.folder, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.2)
            try:
                requests.get(f"{self.url}/readyz", timeout=2).raise_for_status()
                return self.url
            except requests.RequestException as error:
                last = error
        self.log.seek(0)
        self.__exit__()
        raise AssertionError(f"the service is not ready: {last}\n{self.log.read()}")

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            kill_all(self.process.pid)
        self.process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def post(url: str, paths: list[Path]) -> requests.Response:
    """Send image files as the field `images`."""
    files = [("images", (path.name, path.read_bytes(), "image/png")) for path in paths]
    return requests.post(url, files=files, timeout=30)
