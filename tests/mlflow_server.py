"""MLflow's server as a user starts it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.commands import served


@contextmanager
def running_mlflow(command: str, *options: str, folder: Path, **environment: str) -> Iterator[str]:
    """`mlflow ui` or `mlflow server` in `folder` while the block runs; yields its address when it answers."""
    address = f"http://127.0.0.1:{(port := served.free_port())}"
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    own |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
    line = [Path(sys.executable).parent / "mlflow", command, "--port", str(port), "--workers", "1", *options]
    with served.running(line, f"{address}/health", own, folder=folder):
        yield address


@contextmanager
def refusing_server(status: int) -> Iterator[str]:
    """A server that answers every request with this status, like a proxy of a team; yields its address."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_POST = do_GET  # noqa: N815  # the standard library's class looks for these names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
