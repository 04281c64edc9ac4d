"""The BentoML service: `bentoml serve` in the repository root, or out of a Bento."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
from pydantic import Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving import openapi
from serving.answers import Answers
from serving.classifier import Classifier, ModelFault
from serving.guard import Guard
from serving.memory import give_back_large_blocks
from serving.pages import make_pages
from serving.refusals import Refusal
from serving.schemas import FILE, PARTIAL, PIXELS, ExplanationAnswer, Predictions
from serving.settings import Settings, SettingsFault
from serving.uploads import Upload, read_upload

NAME = "car_or_truck"
THREADS = 4
"""Requests that a worker has at work at a time; the others wait for their turn."""

MODEL_FOLDER = Path(__file__).parent.parent / "models" / "champion"

try:
    SETTINGS = Settings.from_environment()
except SettingsFault as fault:
    sys.exit(f"error: {fault}")
PAGES = make_pages(partial(openapi.document, SETTINGS), MODEL_FOLDER / "samples")


class Waiting:
    """A request that was read, or refused, and waits for its turn."""

    def __init__(self, upload: Upload | Refusal, accept: str) -> None:
        self.upload, self.accept, self.since = upload, accept, time.monotonic()

    @classmethod
    async def reading(cls, request: Request, field: str, max_files: int, *options: str) -> Waiting:
        """Read a request, whatever comes of it."""
        accept = request.headers.get("accept", "")
        try:
            return cls(await read_upload(request, field, max_files, options), accept)
        except Refusal as refusal:
            return cls(refusal, accept)

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


class ImagesInput(bentoml.IODescriptor):
    """What /predict takes, as BentoML's clients see it.

    The request itself is read by `serving.uploads`: BentoML would fetch whatever address stands in a field, and answer
    most damaged forms with a 500.
    """

    images: list[Path] = Field(description=f"each {FILE}")
    partial: bool = Field(False, description=PARTIAL)
    pixels: bool = Field(False, description=PIXELS)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImagesInput:
        """What BentoML calls with each request."""
        return cls.model_construct(
            images=await Waiting.reading(request, "images", SETTINGS.max_images, "partial", "pixels")
        )


class ImageInput(bentoml.IODescriptor):
    """What /explain takes, as BentoML's clients see it."""

    image: Path = Field(description=FILE)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImageInput:
        """What BentoML calls with each request."""
        return cls.model_construct(image=await Waiting.reading(request, "image", 1))


@bentoml.service(
    name=NAME,
    # A process a core. Connections are not shared out evenly, so each can have several requests at work, and one that
    # got them all uses the other cores too. Each request has one thread of ONNX Runtime, which then waits for nobody.
    # Merging requests into batches gains nothing on a CPU: benchmarks/serving.md has the figures.
    workers=SETTINGS.workers or "cpu_count",
    threads=THREADS,
    # The guard's limits come first; this one answers 504. It keeps a timer of each request until it is over, answered
    # or not, and with it the request's spans: so it is short, and there are no spans, which took a sixth of the time.
    traffic={"timeout": SETTINGS.body_seconds + SETTINGS.queue_seconds + 30},
    tracing={"excluded_urls": ".*"},
    http={"host": "127.0.0.1"},
    metrics={"enabled": False},  # ours are at the same address: see serving/metrics.py
    logging={"access": {"enabled": False}},  # the guard writes the log
)
@bentoml.asgi_app(PAGES)
class CarOrTruck:
    """Tells the two classes of the packaged model apart."""

    def __init__(self) -> None:
        give_back_large_blocks()
        self.answers = Answers(load(), SETTINGS)
        PAGES.state.card = self.answers.classifier.card.model_dump()

    @bentoml.on_deployment
    def check_model() -> None:
        """Before the service listens: a model that cannot be served ends it here, not each worker again and again."""
        load()

    @bentoml.api(input_spec=ImagesInput, output_spec=Predictions)
    def predict(self, images: Waiting, **_: Any) -> Response:
        """Classify images."""
        try:
            upload = images.take()
            return JSONResponse(self.answers.predict(upload.files, **upload.options))
        except Refusal as refusal:
            return refusal.response()

    @bentoml.api(input_spec=ImageInput, output_spec=ExplanationAnswer)
    def explain(self, image: Waiting) -> Response:
        """Show what the model looked at in one image; as JSON, or with `Accept: image/png` as a picture."""
        try:
            answer, picture = self.answers.explain(image.take().files[0])
        except Refusal as refusal:
            return refusal.response()
        if image.accept == "image/png":
            return Response(picture, media_type="image/png")
        return JSONResponse(answer)


def load() -> Classifier:
    """The champion; one that cannot be served ends the process with one line."""
    try:
        return Classifier.load(MODEL_FOLDER, threads=1)
    except ModelFault as fault:
        sys.exit(f"error: {fault}")


# BentoML's decorator made a Service of the class, which type checkers cannot see.
service: Any = CarOrTruck
if SETTINGS.origins:
    service.add_asgi_middleware(
        CORSMiddleware, allow_origins=SETTINGS.origins, allow_methods=["GET", "POST"], allow_headers=["authorization"]
    )
service.add_asgi_middleware(
    Guard,
    settings=SETTINGS,
    service_name=NAME,
    endpoints=["/predict", "/explain", "/model", "/metrics", "/ui/", "/docs"],
)
