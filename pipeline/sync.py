"""Repair MLflow from the result folders: `make sync`, and every `dvc repro` at its end.

A result whose run is missing gets one, rebuilt from its files; one that is there is left alone. Running it twice
changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from pipeline import registry, results
from pipeline.errors import PipelineError, run_as_command
from pipeline.results import RunRecord
from pipeline.store import repository
from pipeline.tracking import connect, end_killed_runs, log_files, rebuild


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
        end_killed_runs(client, experiment_id)
        with _collecting(faults):
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


def _sync_run(client: mlflow.MlflowClient, experiment_id: str, folder: Path, record: RunRecord) -> tuple[str, str]:
    """Find or make the run of one result; its id, and what was done in words."""
    criterion = f"tags.result_digest = '{record.result_digest}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment_id], criterion, ViewType.ALL)
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    if active:
        run_id = active[0].info.run_id
        if client.list_artifacts(run_id):
            return run_id, "its run is there"
        log_files(client, run_id, results.read(folder))
        return run_id, "its run had lost its files; they are back"
    if found:
        run_id = found[0].info.run_id
        return run_id, f"its run was deleted in MLflow and stays so; `mlflow runs restore --run-id {run_id}` undoes it"
    result = results.read(folder)
    if results.result_digest(folder) != record.result_digest:
        raise PipelineError(f"{folder} is not what its run.json was written for: run `dvc repro`, or `dvc checkout`")
    half_written = _half_written(client, record)
    run_id = rebuild(client, experiment_id, result, record)
    if half_written:
        client.delete_run(half_written.info.run_id)
        return run_id, "its run had broken off; rebuilt from the result folder"
    return run_id, "its run was missing; rebuilt from the result folder"


def _half_written(client: mlflow.MlflowClient, record: RunRecord) -> MlflowRun | None:
    """What is left of a run whose end MLflow could not take."""
    try:
        run = client.get_run(record.run_id or "none")
    except MlflowException:  # there is no such run
        return None
    whole = "result_digest" in run.data.tags
    return run if run.info.lifecycle_stage == "active" and not whole else None


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
