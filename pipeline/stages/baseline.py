"""Stage `baseline`: approach 1, least squares directly on grayscale pixels -> models/baseline."""

import time

from pipeline.approach import run_approach
from pipeline.errors import run_as_command
from pipeline.models import LeastSquares
from pipeline.params import load_params
from pipeline.results import Trained
from pipeline.training import Job


def train(job: Job) -> Trained:
    """Solve for one weight a pixel."""
    start = time.perf_counter()
    model = LeastSquares().fit(job.images("train"), job.labels("train"))
    return Trained(model, seconds=time.perf_counter() - start)


def main() -> None:
    """Always on the CPU, in float64: exact and repeatable."""
    run_approach("baseline", "Least squares on grayscale pixels", {}, load_params(), train, device="cpu")


if __name__ == "__main__":
    run_as_command(main)
