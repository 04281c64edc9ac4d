"""Where MLflow keeps its runs, and a look into the local database without importing MLflow, which takes four seconds.

The database and the artifacts lie in the repository (`mlflow.db`, `mlruns/`), also for DVC's experiments in other
folders, so that a bare `mlflow ui` there shows everything; `MLFLOW_TRACKING_URI` is honoured where it is set.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

REGISTERED_MODEL = "car-or-truck"
FOLDER_TAG = "repository"
"""Tag of an experiment in the local database: the folder that its artifact locations start with."""

RUN_FILES = {"card.json", "metrics.json", "predictions.parquet", "history.csv"}
"""What of a result folder is a run's artifact as it is; its figures are too, and pictures of the image grid."""

BEFORE_TRAINING = "-epoch-0"
"""How the name of a picture ends that shows what another one shows, before the training."""

STORED_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database holds absolute paths: table and column."""


def repository() -> Path:
    """The repository; a stage that DVC runs in a copy of it is told of it by `DVC_ROOT`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def tracking_uri() -> str:
    """Where runs go."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    # `sqlite:///mlflow.db`, MLflow's own default, means the repository's database, also in a copy that DVC works in.
    path = given.removeprefix("sqlite:///")
    names_own = given.startswith("sqlite:///") and (repository() / path).resolve() == repository() / "mlflow.db"
    return _own_uri() if names_own or not given else given


def is_local() -> bool:
    """Whether runs go into the repository's own database."""
    # MLflow sets the variable by itself, once it was told where.
    return tracking_uri() == _own_uri()


def experiment(name: str) -> tuple[str, set[str]] | None:
    """The id of an experiment in the local database and the keys of its tags, None where there is none."""
    try:
        with _database() as database:
            found = database.execute("select experiment_id from experiments where name = ?", (name,)).fetchone()
            tags = database.execute("select key from experiment_tags where experiment_id = ?", found or (None,))
            return (str(found[0]), {key for (key,) in tags.fetchall()}) if found else None
    except sqlite3.Error:
        return None


def _own_uri() -> str:
    return f"sqlite:///{repository() / 'mlflow.db'}"


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """The local database, which must exist; changes are kept when the block ends well."""
    path = repository() / "mlflow.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as connection, connection:
        yield connection


def follow_the_folder() -> bool:
    """Let a database that was moved or copied with its folder point at the artifacts where they lie now.

    MLflow stores absolute paths, and has no command for this.

    Returns:
        Whether anything had to be changed.
    """
    if not (is_local() and (repository() / "mlflow.db").exists()):
        return False
    new, changed = str(repository()), False
    try:
        with _database() as database:
            stored = database.execute("select distinct value from experiment_tags where key = ?", (FOLDER_TAG,))
            for (old,) in stored.fetchall():
                if old == new:
                    continue
                for table, column in STORED_LOCATIONS:
                    # The names are ours, the values are bound.
                    statement = f"update {table} set {column} = ? || substr({column}, ?) where instr({column}, ?) = 1"  # noqa: S608
                    database.execute(statement, (f"{new}/mlruns", len(f"{old}/mlruns") + 1, f"{old}/mlruns"))
                database.execute("update experiment_tags set value = ? where key = ?", (new, FOLDER_TAG))
                changed = True
    except sqlite3.Error:  # another version's tables, or no database at all: MLflow itself will say what is wrong
        return False
    return changed


def pictures(folder: Path) -> dict[tuple[str, int], Path]:
    """The figures of a result folder by name and step in a run's image grid.

    The step is 0; of what is shown before and after the training 0 and 1, so that one slider serves all runs.
    """
    found = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    return {
        (name.removesuffix(BEFORE_TRAINING), int(f"{name}{BEFORE_TRAINING}" in found)): path
        for name, path in found.items()
    }


def run_files(folder: Path) -> set[str]:
    """What a whole run of a result folder has; a picture of the image grid as `images/NAME+step+STEP`."""
    of_figures = {f"figures/{path.name}" for path in pictures(folder).values()}
    return RUN_FILES | of_figures | {f"images/{name}+step+{step}" for name, step in pictures(folder)}


def named_as_run_files(artifacts: Iterable[str]) -> set[str]:
    """Artifacts of a run as `run_files` names them: to a picture of the grid MLflow adds time, number and thumbnail."""
    return {path.partition("+timestamp")[0] for path in artifacts if not path.endswith(".webp")}


def _artifacts(location: str) -> set[str]:
    root = Path(location)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def holds(folders: dict[str, Path], champion_sha256: str | None) -> bool:
    """Whether the local database surely has a finished run of each result, and the champion under its alias.

    Args:
        folders: of the results, by `result_digest`.
        champion_sha256: of the champion's ONNX file; None where there is none.

    Returns:
        False too where a run was deleted or is still going, or where it cannot be told: then ask MLflow itself.
    """
    if not is_local():
        return False
    try:
        with _database() as database:
            runs = database.execute(
                "select tags.value, runs.artifact_uri from tags join runs using (run_uuid) "
                "where tags.key = 'result_digest' and runs.status = 'FINISHED' and runs.lifecycle_stage = 'active'"
            ).fetchall()
            (going,) = database.execute(
                "select count(*) from runs join tags using (run_uuid) "
                "where status = 'RUNNING' and lifecycle_stage = 'active' and tags.key = 'host' and tags.value = ? "
                "and experiment_id in (select experiment_id from runs join tags using (run_uuid) "
                "where tags.key = 'result_digest')",
                (platform.node(),),
            ).fetchone()
            champion = database.execute(
                "select tags.value, versions.storage_location from registered_model_aliases aliases "
                "join model_versions versions using (name, version) join model_version_tags tags using (name, version) "
                "where name = ? and aliases.alias = 'champion' and tags.key = 'onnx_sha256'",
                (REGISTERED_MODEL,),
            ).fetchall()
    except sqlite3.Error:
        return False
    present = {
        digest
        for digest, location in runs
        if digest in folders and run_files(folders[digest]) <= named_as_run_files(_artifacts(location))
    }
    registered = {sha256 for sha256, location in champion if (Path(location) / "MLmodel").exists()}
    return not going and folders.keys() <= present and registered == ({champion_sha256} - {None})
