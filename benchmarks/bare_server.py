"""The floor of any Python server: Starlette, Pillow and ONNX Runtime, and no care for what is sent."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(Path("models/champion/model.onnx"), options)


def classify(files: list[bytes]) -> list[float]:
    """Decode and run the model."""
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    answer: list[float] = session.run(["probability"], {"images": images})[0].tolist()
    return answer


async def predict(request: Request) -> JSONResponse:
    """The whole service."""
    form = await request.form()
    files = [await file.read() for file in form.getlist("images")]  # type: ignore[union-attr]
    return JSONResponse({"probability": await run_in_threadpool(classify, files)})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
