"""Start `bentoml serve` the way a user does, and send requests to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import chdir, suppress
from pathlib import Path

import psutil
import requests

from pipeline.commands.served import free_port
from tests.conftest import ROOT

BIN = Path(sys.executable).parent


def kill_all(pid: int) -> None:
    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        process.send_signal(signal.SIGKILL)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A user's environment with a BENTOML_HOME of its own: two servers that share one clear each other's metrics."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAR_OR_TRUCK_")}
    return clean | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"} | more


class Serving:
    """`bentoml serve` while the block runs; yields its address once it is ready."""

    def __init__(self, folder: Path, environment: dict[str, str], command: Path = BIN / "bentoml") -> None:
        self.folder, self.port, self.command = folder, free_port(), command
        self.url, self.environment = f"http://127.0.0.1:{self.port}", environment | {"BENTOML_PORT": str(self.port)}

    def __enter__(self) -> str:
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [self.command, "serve"], cwd=self.folder, env=self.environment, start_new_session=True,
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
        output = self.output()
        self.__exit__()
        raise AssertionError(f"the service is not ready: {last}\n{output}")

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            kill_all(self.process.pid)
        self.process.wait()

    def output(self) -> str:
        """What the service has written to the terminal so far."""
        self.log.seek(0)
        return self.log.read()

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        workers = []
        for child in children:
            with suppress(psutil.NoSuchProcess):  # psutil's ZombieProcess is one of these
                if "_bentoml_impl.worker.service" in child.cmdline():
                    workers.append(child)
        return workers

    def wait_for_workers(self, count: int) -> list[psutil.Process]:
        """The processes that answer, as soon as `count` of them listen."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            started = self.output().count("initialized")
            if len(self.workers()) == count and started >= count:
                return self.workers()
            time.sleep(0.2)
        raise AssertionError(f"there are {len(self.workers())} workers\n{self.output()}")


def post(url: str, paths: list[Path]) -> requests.Response:
    """Send image files in the field `images`."""
    files = [("images", (path.name, path.read_bytes(), "image/png")) for path in paths]
    return requests.post(url, files=files, timeout=30)


def make_service(folder: Path, dataset) -> Path:
    """Put into `folder` what `bentoml serve` needs: the code and a small champion, made the way `package` makes it."""
    import torch

    from pipeline.approaches.baseline import LeastSquares
    from pipeline.packaging.export import package
    from tests.projects import write_result

    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", folder)
    with chdir(folder):
        rows = dataset.rows("train")
        model = LeastSquares().fit(torch.from_numpy(dataset.images[rows]), torch.from_numpy(dataset.labels[rows]))
        result = write_result(model, dataset, "baseline", "baseline")
        package(result, model, dataset, 1e-4, Path("models/champion"))
    return folder
