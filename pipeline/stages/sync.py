"""Stage `sync`: add the results that MLflow lacks. It runs at the end of every `dvc repro`."""

from pipeline.base.errors import PipelineError, run_as_command
from pipeline.tracking.look import all_there
from pipeline.tracking.store import follow_the_folder


def main() -> None:
    """Look into the local database first, and import MLflow only if something is missing there.

    A fault prints a warning and does not fail the stage, because no result depends on MLflow.
    """
    if follow_the_folder():
        print("the folder was moved: MLflow's artifacts can be seen here again")
    if all_there():
        return
    from pipeline.tracking import sync  # noqa: PLC0415  # imports MLflow, which takes seconds

    try:
        faults = sync.sync(sync.result_folders())
    except PipelineError as error:  # MLflow cannot be used at all
        faults = [str(error)]
    for fault in faults:
        print(f"warning: {fault}; `make sync` tries again")


if __name__ == "__main__":
    run_as_command(main)
