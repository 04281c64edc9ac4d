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
import pandas as pd
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, ViewType
from mlflow.entities import Run as MlflowRun
from PIL import Image

from pipeline import chart_view, registry, results
from pipeline.errors import PipelineError, run_as_command
from pipeline.results import RunRecord
from pipeline.store import named_as_run_files, repository, run_files, tracking_uri
from pipeline.tracking import (
    COLOR_TAG,
    connect,
    curve_points,
    describe_dataset,
    end_killed_runs,
    first_line,
    flat,
    log_files,
    log_result,
    next_color,
    process_tags,
)
from pipeline.training import Epoch

REBUILDS = "rebuilds"
"""Tag of a run that is being, or was, rebuilt: the digest of its result."""


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
    connections: dict[str, tuple[mlflow.MlflowClient, str]] = {}
    refused: list[str] = []
    for experiment in dict.fromkeys(record.experiment for record in records.values()):
        try:
            connections[experiment] = connect(experiment)
        except PipelineError as error:
            refused.append(str(error))
    if refused and not connections:
        raise PipelineError("\n".join(dict.fromkeys(refused)))
    faults += refused
    run_ids: dict[str, str] = {}  # by the digest of the weights: a champion may be of an earlier training
    for folder, record in records.items():
        if record.experiment not in connections:
            continue
        client, experiment_id = connections[record.experiment]
        with _collecting(faults):
            end_killed_runs(client, experiment_id)
            result = _readable(folder, record)
            chart_view.offer(client, experiment_id, result.card.class_names, result.card.dataset_digest)
            run_id, done = _sync_run(client, experiment_id, result, record)
            print(f"{folder.name}: {done}")
            if run_id is not None:
                run_ids[result.card.weights_sha256] = run_id
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
        faults.append(f"MLflow at {tracking_uri()}: {first_line(error)}")


def _sync_run(
    client: mlflow.MlflowClient, experiment_id: str, result: results.Result, record: RunRecord
) -> tuple[str | None, str]:
    """Find or make the run of one result; its id, None of one that lies deleted, and what was done in words."""
    # The tag is written last: a run that has it is whole, even if nobody could say that it ended.
    found = client.search_runs([experiment_id], f"tags.result_digest = '{record.result_digest}'", ViewType.ALL)
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    if active:
        run_id = active[0].info.run_id
        if active[0].info.status not in {"FINISHED", "RUNNING"}:
            client.set_terminated(run_id, "FINISHED", record.ended)
        there = [item.path for part in (None, "figures", "images") for item in client.list_artifacts(run_id, part)]
        lost = run_files(result.folder) - named_as_run_files(there)
        if not lost:
            return run_id, "its run is there"
        log_files(client, run_id, result.folder, lost)
        some = ", ".join(sorted(lost)[:3]) + (", …" if len(lost) > 3 else "")
        return run_id, f"its run had lost {len(lost)} files ({some}); all are back"
    if found:
        run_id = found[0].info.run_id
        return None, f"its run was deleted in MLflow and stays so; `mlflow runs restore --run-id {run_id}` undoes it"
    half_written = _half_written(client, experiment_id, record)
    run_id = _rebuild(client, experiment_id, result, record)
    for broken in half_written:
        client.delete_run(broken.info.run_id)
    if half_written:
        return run_id, "its run had broken off; rebuilt from the result folder"
    return run_id, "its run was missing; rebuilt from the result folder"


def _half_written(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> list[MlflowRun]:
    """What is left of a run whose end MLflow could not take, and of rebuilding that was killed."""
    runs = list(client.search_runs([experiment_id], f"tags.{REBUILDS} = '{record.result_digest}'"))
    if record.run_id is not None:
        runs += client.search_runs([experiment_id], f"attributes.run_id = '{record.run_id}'")
    return [run for run in runs if "result_digest" not in run.data.tags]


def _rebuild(client: mlflow.MlflowClient, experiment_id: str, result: results.Result, record: RunRecord) -> str:
    """Make a run out of a result folder, with the times and tags of the one it stands for; its id."""
    tags = record.tags | {"rebuilt": "true", "first_run_id": record.run_id or "none", REBUILDS: record.result_digest}
    tags |= process_tags()  # of who rebuilds: it may be killed too
    tags.setdefault(COLOR_TAG, next_color(client, experiment_id))
    run_id = str(client.create_run(experiment_id, record.started, tags, record.run_name).info.run_id)
    try:
        _fill(client, run_id, result, record)
    except Exception:
        with suppress(Exception):  # or each attempt would leave one more
            client.set_terminated(run_id, "FAILED")
            client.delete_run(run_id)
        raise
    return run_id


def _fill(client: mlflow.MlflowClient, run_id: str, result: results.Result, record: RunRecord) -> None:
    """Put all of a result into its new run, and end that."""
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in flat(result.card.recipe).items()])
    dataset = describe_dataset(result.card.dataset_digest, result.card.class_names)
    training = DatasetInput(Dataset(**dataset.to_dict()), [InputTag("mlflow.data.context", "training")])
    client.log_inputs(run_id, [training])
    _log_curves(client, run_id, result, record)
    log_result(client, run_id, result, record)
    client.set_terminated(run_id, "FINISHED", record.ended)
    for name in ("host", "pid"):  # now that nobody will end it for being gone
        client.set_tag(run_id, name, record.tags.get(name, "unknown"))


def _log_curves(client: mlflow.MlflowClient, run_id: str, result: results.Result, record: RunRecord) -> None:
    """Put the training curves into a run that was not there while they were made."""
    rows = result.history.astype(object).where(result.history.notna(), None).to_dict("records")
    epochs = [Epoch(**{str(name): value for name, value in row.items()}) for row in rows]
    ended = pd.Series([epoch.seconds for epoch in epochs], dtype=float).cumsum() * 1000 + record.started
    points = [
        Metric(name, value, int(timestamp), epoch.epoch)
        for epoch, timestamp in zip(epochs, ended, strict=True)
        for name, value in curve_points(epoch).items()
    ]
    for start in range(0, len(points), 1000):  # what MLflow takes at once
        client.log_batch(run_id, metrics=points[start : start + 1000])


def _readable(folder: Path, record: RunRecord) -> results.Result:
    """The result in `folder`, its pictures looked at too.

    Raises:
        PipelineError: a file is missing or damaged, or not of the training that `record` is of.
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
    if results.result_digest(folder) != record.result_digest:
        raise PipelineError(f"{folder} is not what its run.json was written for: run `dvc repro`, or `dvc checkout`")
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
