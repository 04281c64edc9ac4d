"""Stage `sync`: MLflow shows every result; what it lacks is rebuilt. Runs at the end of every `dvc repro`."""

import json
from pathlib import Path

from pipeline.errors import PipelineError, run_as_command
from pipeline.files import CHAMPION
from pipeline.store import follow_the_folder, holds

CHAMPION_CARD = CHAMPION / "card.json"


def main() -> None:
    """See by a look into the local database that nothing is missing, and only otherwise import MLflow.

    What cannot be repaired is said and fails nothing: results do not depend on MLflow.
    """
    if follow_the_folder():
        print("the folder was moved: MLflow's artifacts are found here again")
    records = sorted(Path("models").glob("*/run.json"))
    if not records:
        print("there are no results yet: `dvc repro` makes them, `dvc pull` fetches them")
        return
    if _all_there(records):
        print(f"MLflow has all {len(records)} results and the champion")
        return
    from pipeline import sync  # noqa: PLC0415  # with MLflow and torch: eight seconds

    try:
        faults = sync.sync(sync.result_folders())
    except PipelineError as error:  # MLflow cannot be used at all
        faults = [str(error)]
    for fault in faults:
        print(f"warning: {fault}; `make sync` tries again")


def _all_there(records: list[Path]) -> bool:
    try:
        folders = {str(json.loads(path.read_text())["result_digest"]): path.parent for path in records}
        champion = CHAMPION_CARD.exists() and json.loads(CHAMPION_CARD.read_text())["files"]["model.onnx"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):  # sync itself will say which file is damaged
        return False
    # A result whose run.json is lost is none of `records`, and has lost its run.
    complete = {path.parent for path in Path("models").glob("*/metrics.json")} == set(folders.values())
    return complete and holds(folders, champion or None)


if __name__ == "__main__":
    run_as_command(main)
