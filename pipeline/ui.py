"""`make ui`: MLflow's pages, and where in them the lecture is."""

from __future__ import annotations

import os
import sys

from pipeline import chart_view
from pipeline.errors import run_as_command
from pipeline.params import load_params
from pipeline.store import experiment_id


def main() -> None:
    """Say what to open, and become `mlflow ui`."""
    params = load_params()
    if (found := experiment_id(params.tracking.experiment)) is not None:
        print(f"open {chart_view.address(found, params.data.class_names)}", flush=True)
    os.execvp("mlflow", ["mlflow", "ui", "--workers", "1", *sys.argv[1:]])  # noqa: S606  # as a user types it


if __name__ == "__main__":
    run_as_command(main)
