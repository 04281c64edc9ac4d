"""MLflow's server as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.serving import free_port, kill_all


@contextmanager
def running_mlflow(command: str, *options: str, folder: Path, **environment: str) -> Iterator[str]:
    """`mlflow ui` or `mlflow server` in `folder` while the block runs; yields its address once it answers."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    own |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
    line = [Path(sys.executable).parent / "mlflow", command, "--port", str(port), "--workers", "1", *options]
    log = folder / "mlflow.log"
    with log.open("w") as output:
        process = subprocess.Popen(line, cwd=folder, env=own, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            kill_all(process.pid)
        process.wait()
