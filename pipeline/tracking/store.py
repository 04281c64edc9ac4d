"""Where MLflow keeps its runs, and a look into the local database without importing MLflow, which takes four seconds.

The database and the artifacts lie in the repository (`mlflow.db`, `mlruns/`), also for DVC's experiments in other
folders, so that a bare `mlflow ui` there shows everything; `MLFLOW_TRACKING_URI` is honoured where it is set.

MLflow's own tables are read and written only at a revision of their schema on which this was tried. At any other
revision MLflow's client answers, or the user is told what to do.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.base.files import REPORTS, digest_of, sha256_of

KNOWN_REVISIONS = frozenset({"dc11669786a5"})
"""Of MLflow's tables, as `alembic_version` names them: MLflow 3.17."""

REGISTERED_MODEL = "car-or-truck"
FOLDER_TAG = "repository"
"""Tag of an experiment in the local database: the folder that its artifact locations start with."""

RESULT_FILES = ("card.json", "predictions.parquet", "history.csv")
"""The files of a result folder that are artifacts of its run."""

DESCRIPTION_TEMPLATE = Path(__file__).with_name("run.md")
BEFORE_TRAINING = "-epoch-0"
"""The end of a picture's name that shows what another picture shows, but before the training."""

STORED_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database holds absolute paths: table and column."""


class UnknownSchema(Exception):
    """The local database is missing, or its tables have a revision that was never tried."""


def repository() -> Path:
    """The repository; DVC names it by `DVC_ROOT` to a stage that runs in a copy of it."""
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
    """The id of an experiment in the local database and the keys of its tags; None where there is no such experiment.

    Raises:
        UnknownSchema: the tables cannot be read here; MLflow's client can tell.
    """
    with _database() as database:
        row = database.execute("select experiment_id from experiments where name = ?", (name,)).fetchone()
        tags = database.execute("select key from experiment_tags where experiment_id = ?", row or (None,))
        return (str(row[0]), {key for (key,) in tags.fetchall()}) if row else None


def _own_uri() -> str:
    return f"sqlite:///{repository() / 'mlflow.db'}"


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """The local database, if its tables are known; changes are kept when the block ends well.

    Raises:
        UnknownSchema: it is missing, damaged, or has tables of another revision.
    """
    path = repository() / "mlflow.db"
    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as connection,
            connection,
        ):
            revisions = {revision for (revision,) in connection.execute("select version_num from alembic_version")}
            if not revisions or not revisions <= KNOWN_REVISIONS:
                raise UnknownSchema(f"{path} has the schema {', '.join(revisions) or 'of no revision'}")
            yield connection
    except sqlite3.Error as error:
        raise UnknownSchema(f"{path}: {error}") from None


def follow_the_folder() -> bool:
    """Let a database that was moved or copied with its folder point at the artifacts where they lie today.

    MLflow stores absolute paths, and has no command for this. Tables that are not known are left alone: then `connect`
    tells the user what to do.

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
    except UnknownSchema:
        return False
    return changed


def pictures(name: str) -> dict[tuple[str, int], Path]:
    """The figures of a model by name and step in a run's image grid.

    The step is 0. What is shown before and after the training has the steps 0 and 1, so that one slider serves all
    runs.
    """
    paths = {path.stem: path for path in sorted((REPORTS / "figures" / name).glob("*.png"))}
    return {
        (stem.removesuffix(BEFORE_TRAINING), int(f"{stem}{BEFORE_TRAINING}" in paths)): path
        for stem, path in paths.items()
    }


def artifacts(folder: Path) -> dict[str, Path]:
    """The files that the run of a result folder has as artifacts, beside its image grid: artifact -> file here."""
    own = {name: folder / name for name in RESULT_FILES}
    drawn = {f"figures/{path.name}": path for path in pictures(folder.name).values()}
    return own | {"metrics.json": metrics_file(folder.name)} | drawn


def metrics_file(name: str) -> Path:
    """The metrics of a model, as the stage `evaluate` writes them."""
    return REPORTS / "metrics" / f"{name}.json"


def run_files(folder: Path) -> set[str]:
    """What a whole run of a result folder has; a picture of the image grid is `images/NAME+step+STEP`."""
    return set(artifacts(folder)) | {f"images/{name}+step+{step}" for name, step in pictures(folder.name)}


def published_digest(folder: Path) -> str:
    """SHA-256 over what a run shows about its result: metrics, pictures, the template of its description."""
    shown = [metrics_file(folder.name), *pictures(folder.name).values()]
    digests = {str(path): sha256_of(path) for path in shown if path.exists()}
    return digest_of(digests | {DESCRIPTION_TEMPLATE.name: sha256_of(DESCRIPTION_TEMPLATE)})


def named_as_run_files(names: Iterable[str]) -> set[str]:
    """Artifacts of a run as `run_files` names them: MLflow adds time, number and thumbnail to a picture of the grid."""
    return {path.partition("+timestamp")[0] for path in names if not path.endswith(".webp")}


def _files_in(location: str) -> set[str]:
    root = Path(location)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def holds(folders: dict[str, Path], champion_sha256: str | None) -> bool:
    """Whether the local database surely has a finished, whole run of each result, and the champion under its alias.

    Args:
        folders: of the results, by `result_digest`.
        champion_sha256: of the champion's ONNX file; None where there is none.

    Returns:
        False also where a run was deleted or is still going, or where it cannot be told: then MLflow's client can.
    """
    if not is_local():
        return False
    try:
        with _database() as database:
            runs = database.execute(
                "select result.value, published.value, runs.artifact_uri from runs "
                "join tags result on result.run_uuid = runs.run_uuid and result.key = 'result_digest' "
                "join tags published on published.run_uuid = runs.run_uuid and published.key = 'published_digest' "
                "where runs.status = 'FINISHED' and runs.lifecycle_stage = 'active'"
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
    except UnknownSchema:
        return False
    present = {
        digest
        for digest, published, location in runs
        if digest in folders
        and published == published_digest(folders[digest])
        and run_files(folders[digest]) <= named_as_run_files(_files_in(location))
    }
    registered = {sha256 for sha256, location in champion if (Path(location) / "MLmodel").exists()}
    return not going and folders.keys() <= present and registered == ({champion_sha256} - {None})
