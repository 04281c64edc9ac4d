"""Stage `sync`: MLflow shows every result; what it lacks is rebuilt. Runs at the end of every `dvc repro`."""

import json
from pathlib import Path

from pipeline.errors import PipelineError, run_as_command
from pipeline.store import follow_the_folder, holds


def main() -> None:
    """See by a look into the local database that nothing is missing, and only otherwise import MLflow.

    What cannot be repaired is said and fails nothing: results do not depend on MLflow.
    """
    if follow_the_folder():
        print("the folder was moved: MLflow's artifacts are found here again")
    records = [json.loads(path.read_text()) for path in Path("models").glob("*/run.json")]
    card = json.loads(Path("models/champion/card.json").read_text())
    if holds({record["result_digest"] for record in records}, card["files"]["model.onnx"]["sha256"]):
        print(f"MLflow has all {len(records)} results and the champion")
        return
    from pipeline import sync  # noqa: PLC0415  # with MLflow and torch: eight seconds

    try:
        faults = sync.sync(sync.result_folders())
    except PipelineError as error:
        faults = [str(error)]
    for fault in faults:
        print(f"warning: {fault}; `make sync` tries again")


if __name__ == "__main__":
    run_as_command(main)
