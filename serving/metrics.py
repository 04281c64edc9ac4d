"""What Prometheus reads at /metrics: the requests, under the names that BentoML uses, and the images.

BentoML's own request metrics are switched off. They keep a time series for each path that anybody ever asked for, so a
stranger who asks for a million paths fills the memory.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.request_info import info_of

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter(
    "bentoml_service_request_total", "HTTP requests answered", ["endpoint", "http_response_code", "service_name"]
)
REQUEST_SECONDS = Histogram(
    "bentoml_service_request_duration_seconds",
    "From the first byte of a request to the last of its answer",
    ["endpoint", "service_name"],
    buckets=SECONDS,
)
IMAGES = Counter("car_or_truck_images_total", "Images answered, by the label they were given", ["label"])
PROBABILITY = Histogram(
    "car_or_truck_probability",
    "Probability of the label that was given",
    buckets=(0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0),
)
DECODE_SECONDS = Histogram("car_or_truck_decode_seconds", "Decoding all images of a request", buckets=SECONDS)
INFERENCE_SECONDS = Histogram(
    "car_or_truck_inference_seconds", "The model, for all images of a request", buckets=SECONDS
)
REFUSALS = Counter("car_or_truck_refusals_total", "Requests and images that were refused, by reason", ["reason"])


class MetricsMiddleware:
    """ASGI middleware: counts each request and measures its time.

    Args:
        service_name: the value of the label `service_name`.
    """

    def __init__(self, app: ASGIApp, service_name: str) -> None:
        self.app, self.service_name = app, service_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request when it is over."""
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                info = info_of(scope)
                REQUESTS.labels(info.endpoint, str(info.status), self.service_name).inc()
                REQUEST_SECONDS.labels(info.endpoint, self.service_name).observe(info.seconds)


def exposition() -> bytes:
    """Everything in Prometheus' text format; BentoML names the folder where several workers put their figures."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together)
