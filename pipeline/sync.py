"""Repair MLflow from the result folders: `make sync`, and every `dvc repro` at its end.

A result whose run is missing gets one, rebuilt from its files; one that is there is left alone. Running it twice
changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline import registry, results
from pipeline.errors import PipelineError, run_as_command
from pipeline.results import RunRecord
from pipeline.store import repository
from pipeline.tracking import REBUILDS, connect, end_killed_runs, first_line, log_files, rebuild

LOGGED = {"card.json", "metrics.json", "predictions.parquet", "history.csv", "figures", "images"}
"""What a whole run has at the root of its artifacts."""


def sync(folders: list[Path]) -> list[str]:
    """Bring MLflow to what the result folders and the packaged champion say, printing what was done.

    Returns:
        What could not be done, a line each.

    Raises:
        PipelineError: MLflow cannot be used at all.
    """
    lock = repository() / ".cache" / "sync.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):  # of two at once, each would rebuild the same missing run
        return _sync(folders)


def _sync(folders: list[Path]) -> list[str]:
    faults: list[str] = []
    records: dict[Path, RunRecord] = {}
    for folder in folders:
        with _collecting(faults):
            records[folder] = results.read_record(folder)
    connections = {record.experiment: connect(record.experiment) for record in records.values()}
    run_ids: dict[str, str] = {}
    for folder, record in records.items():
        client, experiment_id = connections[record.experiment]
        with _collecting(faults):
            end_killed_runs(client, experiment_id)
            run_ids[folder.name], done = _sync_run(client, experiment_id, folder, record)
            print(f"{folder.name}: {done}")
    # An experiment in a copy of the repository has a champion of its own, which nobody serves.
    if connections and repository() == Path.cwd():
        with _collecting(faults):
            print(registry.register(*next(iter(connections.values())), run_ids))
    return faults


@contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    """Note what goes wrong in the block, and go on after it."""
    try:
        yield
    except PipelineError as error:
        faults.append(str(error))
    except Exception as error:  # any fault of any store or server
        faults.append(f"MLflow: {first_line(error)}")


def _sync_run(client: mlflow.MlflowClient, experiment_id: str, folder: Path, record: RunRecord) -> tuple[str, str]:
    """Find or make the run of one result; its id, and what was done in words."""
    # The tag is written last: a run that has it is whole, even if nobody could say that it ended.
    found = client.search_runs([experiment_id], f"tags.result_digest = '{record.result_digest}'", ViewType.ALL)
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    if active:
        run_id = active[0].info.run_id
        if active[0].info.status not in {"FINISHED", "RUNNING"}:
            client.set_terminated(run_id, "FINISHED", record.ended)
        if {item.path for item in client.list_artifacts(run_id)} >= LOGGED:
            return run_id, "its run is there"
        log_files(client, run_id, _readable(folder))
        return run_id, "its run had lost its files; they are back"
    if found:
        run_id = found[0].info.run_id
        return run_id, f"its run was deleted in MLflow and stays so; `mlflow runs restore --run-id {run_id}` undoes it"
    result = _readable(folder)
    if results.result_digest(folder) != record.result_digest:
        raise PipelineError(f"{folder} is not what its run.json was written for: run `dvc repro`, or `dvc checkout`")
    half_written = _half_written(client, experiment_id, record)
    run_id = rebuild(client, experiment_id, result, record)
    for broken in half_written:
        client.delete_run(broken.info.run_id)
    if half_written:
        return run_id, "its run had broken off; rebuilt from the result folder"
    return run_id, "its run was missing; rebuilt from the result folder"


def _half_written(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> list[MlflowRun]:
    """What is left of a run whose end MLflow could not take, and of rebuilding that was killed."""
    runs = list(client.search_runs([experiment_id], f"tags.{REBUILDS} = '{record.result_digest}'"))
    with suppress(MlflowException):  # there is no such run
        runs.append(client.get_run(record.run_id or "none"))
    return [run for run in runs if run.info.lifecycle_stage == "active" and "result_digest" not in run.data.tags]


def _readable(folder: Path) -> results.Result:
    """The result in `folder`, its pictures looked at too.

    Raises:
        PipelineError: a file is missing or damaged.
    """
    result = results.read(folder)
    pictures = sorted((folder / "figures").glob("*.png"))
    if not pictures:
        raise PipelineError(f"{folder}/figures has no pictures: `dvc checkout`, `dvc pull` or `dvc repro`")
    for path in pictures:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError):
            raise PipelineError(
                f"{path} is damaged: delete it, then `dvc checkout`, `dvc pull` or `dvc repro`"
            ) from None
    return result


def result_folders() -> list[Path]:
    """Every folder under models/ that has, or in git's memory had, a result."""
    return sorted(path.parent for path in Path("models").glob("*/metrics.json"))


def main() -> None:
    """Repair all; exit with 1 where something could not be."""
    folders = result_folders()
    if not folders:
        raise PipelineError("there is no result in models/: `dvc repro` makes them, `dvc pull` fetches them")
    faults = sync(folders)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    run_as_command(main)
