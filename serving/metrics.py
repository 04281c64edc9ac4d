"""What Prometheus scrapes at /metrics: of every request what BentoML counts, and of the images what only we know.

BentoML's own request metrics are switched off and made here under their names, because they keep one time series for
each path that anybody ever asked for: a stranger who asks for a million paths fills the memory.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

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


def exposition() -> bytes:
    """Everything in Prometheus' text format; of all workers together where there are several (BentoML tells where)."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together)
