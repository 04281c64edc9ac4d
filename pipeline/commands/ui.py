"""`make ui`: MLflow's pages, and where in them the lecture is."""

from __future__ import annotations

import os
import sys

from pipeline.base.errors import run_as_command
from pipeline.base.params import load_params
from pipeline.tracking import chart_view
from pipeline.tracking.store import UnknownSchema, experiment


def main() -> None:
    """Say what to open, and become `mlflow ui`."""
    params = load_params()
    class_names = params.data.class_names
    try:
        known = experiment(params.tracking.experiment)
    except UnknownSchema:  # MLflow itself can tell, four seconds later
        from pipeline.tracking.connection import connect  # noqa: PLC0415

        client, number = connect(params.tracking.experiment)
        known = number, set(client.get_experiment(number).tags)
    if known is not None:
        number, tags = known
        offered = chart_view.tag(class_names) in tags  # not before a training with these classes
        print(f"open {chart_view.address(number, class_names if offered else None)}", flush=True)
    os.execvp("mlflow", ["mlflow", "ui", "--workers", "1", *sys.argv[1:]])  # noqa: S606  # as a user types it


if __name__ == "__main__":
    run_as_command(main)
