"""`make ui`: start MLflow's pages and print the address of the lecture's view in them."""

from __future__ import annotations

import os
import sys

from pipeline.base.errors import run_as_command
from pipeline.base.params import load_params
from pipeline.tracking import chart_view
from pipeline.tracking.store import UnknownSchema, experiment


def main() -> None:
    """Print the address to open, and turn this process into `mlflow ui`."""
    params = load_params()
    class_names = params.data.class_names
    try:
        known = experiment(params.tracking.experiment)
    except UnknownSchema:  # MLflow's client can read it, after an import of four seconds
        from pipeline.tracking.connection import connect  # noqa: PLC0415

        client, number = connect(params.tracking.experiment)
        known = number, set(client.get_experiment(number).tags)
    if known is not None:
        number, tags = known
        offered = chart_view.tag(class_names) in tags  # the first training with these classes saves the view
        print(f"open {chart_view.address(number, class_names if offered else None)}", flush=True)
    os.execvp("mlflow", ["mlflow", "ui", "--workers", "1", *sys.argv[1:]])  # noqa: S606  # as a user types it


if __name__ == "__main__":
    run_as_command(main)
