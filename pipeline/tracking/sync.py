"""Bring MLflow to what the results say: `make sync`, and every `dvc repro` at its end.

The run of a new training is filled from its result. A result whose run is missing gets one, rebuilt from its files. A
run that is whole is left alone, so running this twice changes nothing.
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
from pipeline.base.files import MODELS, REPORTS, read_json
from pipeline.results import result as results
from pipeline.results.result import RESULTS, RunRecord
from pipeline.tracking import chart_view, registry
from pipeline.tracking.connection import COLOR_TAG, connect, end_killed_runs, first_line, next_color, process_tags
from pipeline.tracking.publish import log_files, log_training, publish
from pipeline.tracking.store import (
    metrics_file,
    named_as_run_files,
    pictures,
    published_digest,
    repository,
    run_files,
    tracking_uri,
)

REBUILDS = "rebuilds"
"""Tag of a run that is being, or was, rebuilt; its value is the digest of the result."""


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
            result = readable(folder, record)
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
    """Find, fill or make the run of one result; returns its id, None for a deleted run, and what was done in words."""
    # The tag is written last: a run that has it is whole, even if nobody could mark it as finished.
    tagged = client.search_runs([experiment_id], f"tags.result_digest = '{record.result_digest}'", ViewType.ALL)
    own = _run_of_the_training(client, experiment_id, record)
    if active := [run for run in tagged if run.info.lifecycle_stage == "active"]:
        return active[0].info.run_id, _complete(client, active[0], result, record)
    if deleted := tagged or ([own] if own and own.info.lifecycle_stage != "active" else []):
        run_id = deleted[0].info.run_id
        return None, f"its run was deleted in MLflow and stays so; `mlflow runs restore --run-id {run_id}` undoes it"
    if own and own.info.status == "FINISHED":  # the training could say all it had to say
        publish(client, own.info.run_id, result, record)
        return own.info.run_id, "its run has all of the result"
    half_written = _half_written(client, experiment_id, record, own)
    run_id = _rebuild(client, experiment_id, result, record)
    for broken in half_written:
        client.delete_run(broken.info.run_id)
    if half_written:
        return run_id, "its run had broken off; rebuilt from the result folder"
    return run_id, "its run was missing; rebuilt from the result folder"


def _complete(client: mlflow.MlflowClient, run: MlflowRun, result: results.Result, record: RunRecord) -> str:
    """Bring a run that was whole once to what the result shows today; returns what was done in words."""
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
    """The run that the training made in this MLflow, whatever state it is in; None where there is none."""
    if record.run_id is None:
        return None
    runs = client.search_runs([experiment_id], f"attributes.run_id = '{record.run_id}'", ViewType.ALL)
    return runs[0] if runs else None


def _half_written(
    client: mlflow.MlflowClient, experiment_id: str, record: RunRecord, own: MlflowRun | None
) -> list[MlflowRun]:
    """What is left of a run whose end MLflow could not take, and of a rebuilding that was killed."""
    runs = list(client.search_runs([experiment_id], f"tags.{REBUILDS} = '{record.result_digest}'"))
    return [run for run in [*runs, *([own] if own else [])] if "result_digest" not in run.data.tags]


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
    log_training(client, run_id, result, record)
    publish(client, run_id, result, record)
    client.set_terminated(run_id, "FINISHED", record.ended)
    for name in ("host", "pid"):  # nobody has to watch over the process any longer
        client.set_tag(run_id, name, record.tags.get(name, "unknown"))


def readable(folder: Path, record: RunRecord) -> results.Result:
    """The result in `folder`, with its metrics and pictures looked at.

    Raises:
        PipelineError: a file is missing or damaged, or belongs to another training than the rest.
    """
    result = results.read(folder)
    digest = results.result_digest(folder)
    if digest != record.result_digest:
        raise PipelineError(f"{folder} is not what its run.json was written for: run `dvc repro`, or `dvc checkout`")
    if read_json(RESULTS).get(folder.name) != digest:
        raise PipelineError(f"{folder} is not the result that was evaluated and drawn: run `dvc repro`")
    read_json(metrics_file(folder.name))
    paths = sorted(pictures(folder.name).values())
    if not paths:
        raise PipelineError(f"{REPORTS}/figures/{folder.name} is empty: `dvc checkout`, `dvc pull` or `dvc repro`")
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
    """The folder of every model that has metrics: git keeps these, even where the results themselves are not here."""
    return sorted(MODELS / path.stem for path in (REPORTS / "metrics").glob("*.json"))
