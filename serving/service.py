"""The BentoML service. `bentoml serve` starts it, in the root of the repository or from a Bento."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
from pydantic import Field
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving import openapi, token_check
from serving.access_log import AccessLogMiddleware
from serving.answer_headers import AnswerHeadersMiddleware
from serving.answers import Answers
from serving.classifier import Classifier, ModelFault
from serving.memory import give_back_large_blocks
from serving.metrics import MetricsMiddleware
from serving.pages import make_pages
from serving.refusals import JsonRefusalsMiddleware, Refusal
from serving.request_body import RequestBodyMiddleware
from serving.request_info import RequestInfoMiddleware
from serving.request_limit import RequestLimitMiddleware
from serving.schemas import FILE, PARTIAL, PIXELS, ExplanationAnswer, Predictions
from serving.send_timeout import SendTimeoutMiddleware
from serving.settings import Settings, SettingsFault
from serving.uploads import Upload, read_upload

NAME = "car_or_truck"
THREADS = 4
"""How many requests a worker works on at a time; the others wait for their turn."""

MODEL_FOLDER = Path(__file__).parent.parent / "models" / "champion"

try:
    SETTINGS = Settings.from_environment()
except SettingsFault as fault:
    sys.exit(f"error: {fault}")
PAGES = make_pages(partial(openapi.document, SETTINGS), MODEL_FOLDER / "samples")


class Waiting:
    """A request that waits for its turn: its upload, or the reason why it could not be read."""

    def __init__(self, upload: Upload | Refusal, accept: str) -> None:
        self.upload, self.accept, self.since = upload, accept, time.monotonic()

    @classmethod
    async def reading(cls, request: Request, field: str, max_files: int, *options: str) -> Waiting:
        """Read a request; one that cannot be read also waits for its turn, and is then refused."""
        accept = request.headers.get("accept", "")
        try:
            return cls(await read_upload(request, field, max_files, options), accept)
        except Refusal as refusal:
            return cls(refusal, accept)

    def take(self) -> Upload:
        """The upload, for a request whose turn has come.

        Raises:
            Refusal: the request could not be read, or waited too long.
        """
        if isinstance(self.upload, Refusal):
            raise self.upload
        if time.monotonic() - self.since > SETTINGS.queue_seconds:
            raise Refusal(429, "too_many_requests", "The service has too many requests: try again in a moment.")
        return self.upload


class ImagesInput(bentoml.IODescriptor):
    """What /predict takes, as BentoML's clients see it.

    `serving.uploads` reads the request itself. BentoML would fetch any address that it finds in a field, and would
    answer most damaged forms with a 500.
    """

    images: list[Path] = Field(description=f"each {FILE}")
    partial: bool = Field(False, description=PARTIAL)
    pixels: bool = Field(False, description=PIXELS)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImagesInput:
        """BentoML calls this with each request."""
        return cls.model_construct(
            images=await Waiting.reading(request, "images", SETTINGS.max_images, "partial", "pixels")
        )


class ImageInput(bentoml.IODescriptor):
    """What /explain takes, as BentoML's clients see it."""

    image: Path = Field(description=FILE)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> ImageInput:
        """BentoML calls this with each request."""
        return cls.model_construct(image=await Waiting.reading(request, "image", 1))


@bentoml.service(
    name=NAME,
    # One process for each core, and several threads in each: the system does not spread connections evenly, and a
    # process that got them all can then use the other cores too. ONNX Runtime gets one thread for each request, so that
    # requests do not wait for each other. Merging requests into batches gains nothing on a CPU: benchmarks/serving.md.
    workers=SETTINGS.workers or "cpu_count",
    threads=THREADS,
    # Our own limits end a request earlier; this one answers 504. BentoML keeps a timer and the tracing spans of each
    # request for this time, even after the answer: so the time is short. Tracing is off; it took a sixth of the time.
    traffic={"timeout": SETTINGS.body_seconds + SETTINGS.queue_seconds + 30},
    tracing={"excluded_urls": ".*"},
    http={"host": "127.0.0.1"},
    metrics={"enabled": False},  # serving/metrics.py makes them, at the same address
    logging={"access": {"enabled": False}},  # serving/access_log.py writes it
)
@bentoml.asgi_app(PAGES)
class CarOrTruck:
    """Classifies images with the packaged model."""

    def __init__(self) -> None:
        give_back_large_blocks()
        self.answers = Answers(load(), SETTINGS)
        PAGES.state.card = self.answers.classifier.card.model_dump()

    @bentoml.on_deployment
    def check_model() -> None:
        """Load the model before the service listens, so that a fault ends it here and not in each worker."""
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
        """Show what the model looked at in one image, as JSON or, with `Accept: image/png`, as a picture."""
        try:
            answer, picture = self.answers.explain(image.take().files[0])
        except Refusal as refusal:
            return refusal.response()
        if image.accept == "image/png":
            return Response(picture, media_type="image/png")
        return JSONResponse(answer)


def load() -> Classifier:
    """The champion; if it cannot be served, the process ends with one line."""
    try:
        return Classifier.load(MODEL_FOLDER, threads=1)
    except ModelFault as fault:
        sys.exit(f"error: {fault}")


# BentoML's decorator turned the class into a Service; type checkers cannot see that.
service: Any = CarOrTruck
# The first middleware is the outermost: it sees a request first and its answer last. So the log and the metrics have
# each answer, the token is checked before a body is read, and a slow client does not yet count as a request.
if SETTINGS.origins:
    service.add_asgi_middleware(
        CORSMiddleware, allow_origins=SETTINGS.origins, allow_methods=["GET", "POST"], allow_headers=["authorization"]
    )
service.add_asgi_middleware(
    RequestInfoMiddleware, endpoints=["/predict", "/explain", "/model", "/metrics", "/ui/", "/docs"]
)
service.add_asgi_middleware(AccessLogMiddleware)
service.add_asgi_middleware(MetricsMiddleware, service_name=NAME)
service.add_asgi_middleware(SendTimeoutMiddleware, seconds=SETTINGS.send_seconds)
service.add_asgi_middleware(AnswerHeadersMiddleware)
service.add_asgi_middleware(JsonRefusalsMiddleware)
if SETTINGS.token:
    service.add_asgi_middleware(
        AuthenticationMiddleware, backend=token_check.TokenCheck(SETTINGS.token), on_error=token_check.refuse
    )
service.add_asgi_middleware(
    RequestBodyMiddleware,
    max_bytes=int(SETTINGS.max_body_megabytes * 1_000_000),
    max_held_bytes=SETTINGS.max_held_megabytes * 1_000_000,
    seconds=SETTINGS.body_seconds,
)
service.add_asgi_middleware(RequestLimitMiddleware, max_requests=SETTINGS.max_requests)
