"""The servers that are compared, each started as its users start it, and the load on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
import onnx

from pipeline.base.errors import PipelineError
from pipeline.base.files import CHAMPION
from pipeline.commands.served import environment
from pipeline.tracking.registry import SIGNATURE

BOUNDARY = "----bench"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PORTS = {"this service": 3101, "bare handler": 3102, "mlflow models serve": 3103}
CORES = os.cpu_count() or 1
BIN = Path(sys.executable).parent
MODEL = CHAMPION / "model.onnx"


@dataclass
class Runs:
    """What one server did under one load, in several rounds.

    Attributes:
        per_second: answered requests a second, one number for each round.
        latencies: seconds, one number for each request.
    """

    per_second: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """A latency in milliseconds."""
        return float(np.quantile(self.latencies, share) * 1000)


def form_of(files: list[bytes]) -> bytes:
    """A multipart body with the files as `images`."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="i.png"\r\nContent-Type: image/png'
    return b"".join(head.encode() + b"\r\n\r\n" + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


def bentoml_serve(home: str) -> tuple[list[str | Path], str, dict[str, str]]:
    """This service: its command, an address that answers when it is up, and its environment."""
    port = PORTS["this service"]
    command: list[str | Path] = [BIN / "bentoml", "serve", "--port", str(port)]
    return command, f"http://127.0.0.1:{port}/readyz", environment(home)


def bare_handler() -> tuple[list[str | Path], str, dict[str, str]]:
    """The bare handler, one process for each core. It has no health check: it is up as soon as it refuses a GET."""
    port = PORTS["bare handler"]
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.bare_server", str(port), str(CORES)]
    return command, f"http://127.0.0.1:{port}/predict", dict(os.environ)


def mlflow_serve(folder: Path) -> tuple[list[str | Path], str, dict[str, str]]:
    """MLflow's own server of the same ONNX file, one process for each core."""
    mlflow.onnx.save_model(
        onnx.load(MODEL),
        folder,
        signature=SIGNATURE,
        pip_requirements=[],
        onnx_execution_providers=["CPUExecutionProvider"],
    )
    port = PORTS["mlflow models serve"]
    command: list[str | Path] = [BIN / "mlflow", "models", "serve", "-m", folder, "--env-manager", "local"]
    command += ["--port", str(port), "--workers", str(CORES)]
    return command, f"http://127.0.0.1:{port}/ping", dict(os.environ)


def load(
    server: str, body: Path, content_type: str, concurrency: int, seconds: float, runs: Runs, rate: float = 0
) -> None:
    """Put one round of load on a server, from a process of its own, and add the result to `runs`."""
    path = "/invocations" if server == "mlflow models serve" else "/predict"
    url = f"http://127.0.0.1:{PORTS[server]}{path}"
    numbers = [str(number) for number in (concurrency, seconds, rate)]
    command = [sys.executable, "-m", "benchmarks.load", url, str(body), content_type, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineError(f"the load on {server} failed: {done.stderr.strip().splitlines()[-1]}")
    latencies, failures = json.loads(done.stdout)
    if failures:
        raise PipelineError(f"{server} failed {failures} of {len(latencies)} requests")
    runs.latencies += latencies
    runs.per_second.append(len(latencies) / seconds)
