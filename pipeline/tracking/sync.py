"""Bringing MLflow up to date with the results, by `make sync` and at the end of every `dvc repro`.

The run of a new training is filled from its result. If the run of a result is missing, it is rebuilt from the files of
the result. A complete run is left alone, so a second call changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from PIL import Image

from pipeline.base.errors import PipelineError
from pipeline.base.files import FIGURES, METRICS, MODELS, RESULTS, read_json
from pipeline.results import result as results
from pipeline.results.result import RunRecord
from pipeline.tracking import chart_view, registry
from pipeline.tracking.connection import COLOR_TAG, connect, end_killed_runs, first_line, next_color, process_tags
from pipeline.tracking.publish import log_files, log_training, publish
from pipeline.tracking.store import (
    named_as_run_files,
    pictures,
    published_digest,
    repository,
    run_files,
    tracking_uri,
)

REBUILDS = "rebuilds"
"""The tag of a rebuilt run, set when the rebuilding starts; its value is the digest of the result."""


def sync(folders: list[Path]) -> list[str]:
    """Bring MLflow up to date with the result folders and the packaged champion, and print what was done.

    Returns:
        One line for each fault that could not be repaired.

    Raises:
        PipelineError: MLflow cannot be used at all.
    """
    lock = repository() / ".cache" / "sync.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):  # two processes at once would both rebuild the same missing run
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
    run_ids: dict[str, str] = {}  # by the digest of the weights: a champion may come from an earlier training
    for folder, record in records.items():
        if record.experiment not in connections:
            continue
        client, experiment_id = connections[record.experiment]
        with _collecting(faults):
            end_killed_runs(client, experiment_id)
            result = readable(folder, record)
            chart_view.offer(client, experiment_id, result.card.class_names, result.card.dataset_digest)
            run_id, done = _sync_run(client, experiment_id, result, record)
            print(f"{folder.name}: {done}")
            if run_id is not None:
                run_ids[result.card.weights_sha256] = run_id
    # A DVC experiment in a copy of the repository has its own champion, which nobody serves.
    if connections and repository() == Path.cwd():
        with _collecting(faults):
            print(registry.register(*next(iter(connections.values())), run_ids))
    return faults


@contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    """Append an error of the block to `faults`, and go on after the block."""
    try:
        yield
    except PipelineError as error:
        faults.append(str(error))
    except Exception as error:  # any fault of any store or server
        faults.append(f"MLflow at {tracking_uri()}: {first_line(error)}")


def _sync_run(
    client: mlflow.MlflowClient, experiment_id: str, result: results.Result, record: RunRecord
) -> tuple[str | None, str]:
    """Find, fill or make the run of one result. Returns its id (None for a deleted run) and what was done, as text."""
    # The tag is written last. A run that has it is complete, even if it could not be marked as finished.
    tagged = client.search_runs([experiment_id], f"tags.result_digest = '{record.result_digest}'", ViewType.ALL)
    own = _run_of_the_training(client, experiment_id, record)
    if active := [run for run in tagged if run.info.lifecycle_stage == "active"]:
        return active[0].info.run_id, _complete(client, active[0], result, record)
    if deleted := tagged or ([own] if own and own.info.lifecycle_stage != "active" else []):
        run_id = deleted[0].info.run_id
        return None, f"its run was deleted in MLflow; `mlflow runs restore --run-id {run_id}` brings it back"
    if own and own.info.status == "FINISHED":  # the training wrote everything into it
        publish(client, own.info.run_id, result, record)
        return own.info.run_id, "its run got the rest of the result"
    half_written = _half_written(client, experiment_id, record, own)
    run_id = _rebuild(client, experiment_id, result, record)
    for broken in half_written:
        client.delete_run(broken.info.run_id)
    if half_written:
        return run_id, "its run was incomplete; rebuilt from the result folder"
    return run_id, "its run was missing; rebuilt from the result folder"


def _complete(client: mlflow.MlflowClient, run: MlflowRun, result: results.Result, record: RunRecord) -> str:
    """Bring a run that was complete before up to date with its result. Returns what was done, as text."""
    run_id = run.info.run_id
    if run.info.status not in {"FINISHED", "RUNNING"}:
        client.set_terminated(run_id, "FINISHED", record.ended)
    if run.data.tags.get("published_digest") != published_digest(result.folder):
        publish(client, run_id, result, record)
        return "its run shows the new metrics and pictures"
    there = [item.path for part in (None, "figures", "images") for item in client.list_artifacts(run_id, part)]
    lost = run_files(result.folder) - named_as_run_files(there)
    if not lost:
        return "its run is there"
    log_files(client, run_id, result, lost)
    some = ", ".join(sorted(lost)[:3]) + (", …" if len(lost) > 3 else "")
    return f"its run had lost {len(lost)} files ({some}); all are back"


def _run_of_the_training(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> MlflowRun | None:
    """The run that the training made in this MLflow, in any state; None if this MLflow does not have it."""
    if record.run_id is None:
        return None
    runs = client.search_runs([experiment_id], f"attributes.run_id = '{record.run_id}'", ViewType.ALL)
    return runs[0] if runs else None


def _half_written(
    client: mlflow.MlflowClient, experiment_id: str, record: RunRecord, own: MlflowRun | None
) -> list[MlflowRun]:
    """The incomplete runs of a result: the training's own if MLflow failed at its end, and those of killed rebuilds."""
    runs = list(client.search_runs([experiment_id], f"tags.{REBUILDS} = '{record.result_digest}'"))
    return [run for run in [*runs, *([own] if own else [])] if "result_digest" not in run.data.tags]


def _rebuild(client: mlflow.MlflowClient, experiment_id: str, result: results.Result, record: RunRecord) -> str:
    """Make a run from a result folder, with the times and tags of the training's own run. Returns its id."""
    tags = record.tags | {"rebuilt": "true", "first_run_id": record.run_id or "none", REBUILDS: record.result_digest}
    tags |= process_tags()  # of this process, which may be killed too
    tags.setdefault(COLOR_TAG, next_color(client, experiment_id))
    run_id = str(client.create_run(experiment_id, record.started, tags, record.run_name).info.run_id)
    try:
        _fill(client, run_id, result, record)
    except Exception:
        with suppress(Exception):  # else each attempt would leave another incomplete run
            client.set_terminated(run_id, "FAILED")
            client.delete_run(run_id)
        raise
    return run_id


def _fill(client: mlflow.MlflowClient, run_id: str, result: results.Result, record: RunRecord) -> None:
    """Put the whole result into its new run, and end the run."""
    log_training(client, run_id, result, record)
    publish(client, run_id, result, record)
    client.set_terminated(run_id, "FINISHED", record.ended)
    for name in ("host", "pid"):  # the tags of the training's own process, as the run has ended
        client.set_tag(run_id, name, record.tags.get(name, "unknown"))


def readable(folder: Path, record: RunRecord) -> results.Result:
    """Read the result in `folder`, and check its metrics and pictures.

    Raises:
        PipelineError: a file is missing or damaged, or belongs to another training than the rest.
    """
    result = results.read(folder)
    digest = results.result_digest(folder)
    if digest != record.result_digest:
        raise PipelineError(f"{folder} is not what its run.json was written for: run `dvc repro`, or `dvc checkout`")
    if read_json(RESULTS).get(folder.name) != digest:
        raise PipelineError(f"{folder} has changed since it was evaluated and drawn: run `dvc repro`")
    read_json(METRICS / f"{folder.name}.json")
    paths = sorted(pictures(folder.name).values())
    if not paths:
        raise PipelineError(f"{FIGURES}/{folder.name} is empty: `dvc checkout`, `dvc pull` or `dvc repro`")
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError):
            raise PipelineError(
                f"{path} is damaged: delete it, then `dvc checkout`, `dvc pull` or `dvc repro`"
            ) from None
    return result


def result_folders() -> list[Path]:
    """The folder of every model that has metrics. Git keeps the metrics, even if the result folders are not here."""
    return sorted(MODELS / path.stem for path in METRICS.glob("*.json"))
