"""The least that a Python server does: Starlette, Pillow and ONNX Runtime, without a check of what is sent.

`python -m benchmarks.bare_server PORT PROCESSES`. The socket is opened here, because it must name TCP as its protocol:
only then does asyncio send small packets at once. The sockets of `uvicorn --workers` do not name it, and their answers
wait 40 ms for an acknowledgement of the head.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@cache
def model() -> onnxruntime.InferenceSession:
    """The model: each process loads it once, and runs it with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(Path("models/champion/model.onnx"), options)


def classify(files: list[bytes]) -> list[float]:
    """Decode and run the model."""
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    answer: list[float] = model().run(["probability"], {"images": images})[0].tolist()
    return answer


async def predict(request: Request) -> JSONResponse:
    """Answer a request: this is the whole service."""
    form = await request.form()
    files = [await file.read() for file in form.getlist("images")]  # type: ignore[union-attr]
    return JSONResponse({"probability": await run_in_threadpool(classify, files)})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])


def main(port: int, processes: int) -> None:
    """Answer on one socket, in this number of processes."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    uvicorn.Server(uvicorn.Config(app, access_log=False)).run([listener])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
