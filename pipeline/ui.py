"""`make ui`: MLflow's pages, and where in them the lecture is."""

from __future__ import annotations

import os
import sys

from pipeline import chart_view
from pipeline.errors import run_as_command
from pipeline.params import load_params
from pipeline.store import experiment


def main() -> None:
    """Say what to open, and become `mlflow ui`."""
    params = load_params()
    if (found := experiment(params.tracking.experiment)) is not None:
        number, tags = found
        class_names = params.data.class_names
        offered = chart_view.tag(class_names) in tags  # not before a training with these classes
        print(f"open {chart_view.address(number, class_names if offered else None)}", flush=True)
    os.execvp("mlflow", ["mlflow", "ui", "--workers", "1", *sys.argv[1:]])  # noqa: S606  # as a user types it


if __name__ == "__main__":
    run_as_command(main)
