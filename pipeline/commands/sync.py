"""`make sync`: repair MLflow from the results, and fail if something cannot be repaired."""

from __future__ import annotations

import sys

from pipeline.base.errors import PipelineError, run_as_command
from pipeline.tracking.sync import result_folders, sync


def main() -> None:
    """Repair all runs. Exit with 1 if something cannot be repaired."""
    folders = result_folders()
    if not folders:
        raise PipelineError("no results exist yet: `dvc repro` makes them, `dvc pull` fetches them")
    faults = sync(folders)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    run_as_command(main)
