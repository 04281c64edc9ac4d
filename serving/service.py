"""The BentoML service: `bentoml serve` in the repository root, or out of a Bento."""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving import metrics, openapi
from serving.classifier import Classifier, ModelFault
from serving.explain import METHOD, occlusion, overlay, png
from serving.guard import Guard
from serving.images import BadImage, ReadImage, read_image
from serving.pages import make_pages
from serving.refusals import Refusal
from serving.schemas import ExplanationAnswer, Predictions
from serving.settings import Settings, SettingsFault
from serving.uploads import File, Upload, read_upload

NAME = "car_or_truck"
MODEL_FOLDER = Path(__file__).parent.parent / "models" / "champion"
SHOWN_OF_MODEL = ("name", "dataset_digest", "commit", "run_id", "test_accuracy", "test_accuracy_interval")

try:
    SETTINGS = Settings.from_environment()
except SettingsFault as fault:
    sys.exit(f"error: {fault}")
PAGES = make_pages(openapi.document(SETTINGS), MODEL_FOLDER / "samples")


class Waiting:
    """A request that was read, or refused, and waits for its turn."""

    def __init__(self, upload: Upload | Refusal, accept: str) -> None:
        self.upload, self.accept, self.since = upload, accept, time.monotonic()

    def take(self) -> Upload:
        """The upload, when its turn has come.

        Raises:
            Refusal: it was refused when it was read, or has waited for too long.
        """
        if isinstance(self.upload, Refusal):
            raise self.upload
        if time.monotonic() - self.since > SETTINGS.queue_seconds:
            raise Refusal(429, "too_many_requests", "The service has more to do than it can: try again in a moment.")
        return self.upload


async def wait_with(request: Request, field: str, max_files: int, *options: str) -> Waiting:
    """Read a request, whatever comes of it."""
    accept = request.headers.get("accept", "")
    try:
        return Waiting(await read_upload(request, field, max_files, options), accept)
    except Refusal as refusal:
        return Waiting(refusal, accept)


class ImagesInput(bentoml.IODescriptor):
    """What /predict takes, as BentoML's clients see it; the request itself is read by `serving.uploads`."""

    images: list[Path] = Field(description="PNG, JPEG, WebP, BMP or GIF files of any size")
    partial: bool = Field(False, description="answer the good images, and say for each bad one why not")
    pixels: bool = Field(False, description="also give the 32x32 pixels that the model saw")

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImagesInput:
        """BentoML would fetch whatever URL a field holds, and answer most damaged forms with a 500."""
        return cls.model_construct(images=await wait_with(request, "images", SETTINGS.max_images, "partial", "pixels"))


class ImageInput(bentoml.IODescriptor):
    """What /explain takes, as BentoML's clients see it."""

    image: Path = Field(description="a PNG, JPEG, WebP, BMP or GIF file of any size")

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImageInput:
        """As above."""
        return cls.model_construct(image=await wait_with(request, "image", 1))


@bentoml.service(
    name=NAME,
    # A process a core, each with one thread of work: Python's lock is then in nobody's way, and ONNX Runtime has no
    # threads to wait for. Merging requests into batches was measured: it gains nothing on a CPU (benchmarks/serving.md).
    workers=SETTINGS.workers or "cpu_count",
    threads=1,
    traffic={"timeout": 120},  # the guard's limits come first: this one answers 504
    http={"host": "127.0.0.1"},
    metrics={"enabled": False},  # ours are at the same address: see serving/metrics.py
    logging={"access": {"enabled": False}},  # the guard writes the log
)
@bentoml.asgi_app(PAGES)
class CarOrTruck:
    """Tells cars from trucks."""

    def __init__(self) -> None:
        self.classifier = load()
        card = self.classifier.card
        self.model = {key: card[key] for key in SHOWN_OF_MODEL} | {"digest": card["files"]["model.onnx"]["sha256"]}
        PAGES.state.card = card | {"digest": self.model["digest"]}

    @bentoml.on_deployment
    def check_model() -> None:
        """Before the service listens: a model that cannot be served ends it here, and not each worker again and again."""
        load()

    @bentoml.api(input_spec=ImagesInput, output_spec=Predictions)
    def predict(self, images: Waiting, **_: bool) -> Response:
        """Classify images (PNG, JPEG, WebP, BMP or GIF, any size)."""
        try:
            upload = images.take()
            read, faults = self._decode(upload.files, partial=upload.options["partial"])
            probabilities = self._infer([image for image in read if image is not None])
        except Refusal as refusal:
            return refusal.response()
        answers = iter(probabilities)
        predictions = [
            faults[index] | {"sha256": _sha256(file)}
            if image is None
            else self._verdict(next(answers)) | _about(file, image) | _pixels(image, upload.options["pixels"])
            for index, (file, image) in enumerate(zip(upload.files, read, strict=True))
        ]
        return JSONResponse({"predictions": predictions, "model": self.model})

    @bentoml.api(input_spec=ImageInput, output_spec=ExplanationAnswer)
    def explain(self, image: Waiting) -> Response:
        """Show what the model looked at in one image; as JSON, or with `Accept: image/png` as a picture."""
        try:
            (file,) = image.take().files
            (read,), _ = self._decode([file])
        except Refusal as refusal:
            return refusal.response()
        explanation = occlusion(self.classifier, read.pixels)
        picture = overlay(read.pixels, explanation)
        if image.accept == "image/png":
            return Response(picture, media_type="image/png")
        answer = self._verdict(explanation.probability) | _about(file, read) | _pixels(read, True)
        answer |= {"method": METHOD, "grid": explanation.grid.round(4).tolist(), "model": self.model}
        return JSONResponse(answer | {"overlay": base64.b64encode(picture).decode()})

    def _decode(self, files: list[File], partial: bool = False) -> tuple[list[Any], dict[int, dict[str, Any]]]:
        """Each file as ReadImage, or None and, under its index, the reason.

        Raises:
            Refusal: a file cannot be read, and `partial` is not asked for; or all together are too large.
        """
        read: list[ReadImage | None] = []
        faults = {}
        pixels = 0
        with metrics.DECODE_SECONDS.time():
            for index, file in enumerate(files):
                try:
                    image = read_image(file.content, SETTINGS.max_megapixels * 1e6)
                except BadImage as fault:
                    name = file.filename or f"Image {index + 1}"
                    refusal = Refusal(422, fault.code, f"{name} {fault}.", index=index, filename=file.filename)
                    if not partial:
                        raise refusal from None
                    faults[index] = refusal.document()
                    read.append(None)
                    continue
                pixels += image.width * image.height
                if pixels > SETTINGS.max_request_megapixels * 1e6:
                    raise Refusal(
                        413,
                        "too_many_pixels",
                        f"The images of a request may have {SETTINGS.max_request_megapixels:g} megapixels together.",
                    )
                read.append(image)
        return read, faults

    def _infer(self, images: list[ReadImage]) -> list[float]:
        if not images:
            return []
        with metrics.INFERENCE_SECONDS.time():
            stacked: NDArray[np.uint8] = np.stack([image.pixels for image in images])
            return self.classifier.probabilities(stacked).tolist()

    def _verdict(self, probability: float) -> dict[str, Any]:
        first, second = self.classifier.class_names
        label, own = (second, probability) if probability > 0.5 else (first, 1 - probability)
        metrics.IMAGES.labels(label).inc()
        metrics.PROBABILITY.observe(own)
        each = {first: round(1 - probability, 6), second: round(probability, 6)}
        return {"label": label, "probability": each[label], "probabilities": each}


def load() -> Classifier:
    """The champion; one that cannot be served ends the process with one line."""
    try:
        return Classifier.load(MODEL_FOLDER, threads=1)
    except ModelFault as fault:
        sys.exit(f"error: {fault}")


def _about(file: File, image: ReadImage) -> dict[str, Any]:
    return {"filename": file.filename, "width": image.width, "height": image.height, "sha256": _sha256(file)}


def _sha256(file: File) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _pixels(image: ReadImage, wanted: bool) -> dict[str, str]:
    return {"pixels": base64.b64encode(png(image.pixels)).decode()} if wanted else {}


if SETTINGS.origins:
    CarOrTruck.add_asgi_middleware(
        CORSMiddleware, allow_origins=SETTINGS.origins, allow_methods=["GET", "POST"], allow_headers=["authorization"]
    )
CarOrTruck.add_asgi_middleware(
    Guard, settings=SETTINGS, service_name=NAME, endpoints=["/predict", "/explain", "/model", "/metrics", "/ui/", "/docs"]
)
