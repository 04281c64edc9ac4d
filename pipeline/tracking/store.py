"""The place of MLflow's runs, and a look into the local database without importing MLflow, which takes four seconds.

The database and the artifacts lie in the repository (`mlflow.db`, `mlruns/`), even for DVC's experiments in other
folders. So a plain `mlflow ui` in the repository shows everything. If `MLFLOW_TRACKING_URI` is set, it is used instead.

MLflow's own tables are read and written here only at a tested revision of their schema. At any other revision MLflow's
client answers, or a message tells the user what to do.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.base.files import FIGURES, METRICS, digest_of, sha256_of

KNOWN_REVISIONS = frozenset({"dc11669786a5"})
"""The tested revisions of MLflow's tables, as `alembic_version` names them: MLflow 3.17."""

REGISTERED_MODEL = "car-or-truck"
FOLDER_TAG = "repository"
"""The tag of an experiment in the local database that holds the folder at the start of its artifact locations."""

RESULT_FILES = ("card.json", "predictions.parquet", "history.csv")
"""The files of a result folder that become artifacts of its run."""

DESCRIPTION_TEMPLATE = Path(__file__).with_name("run.md")
BEFORE_TRAINING = "-epoch-0"
"""The end of a picture's name: NAME-epoch-0 shows the same as NAME before the training."""

STORED_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The tables and columns of MLflow's database that hold absolute paths."""


class UnknownSchema(Exception):
    """The local database is missing or damaged, or its tables have a revision that was not tested."""


def repository() -> Path:
    """The folder of the repository. If a stage runs in a copy of it, DVC gives the original folder in `DVC_ROOT`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def tracking_uri() -> str:
    """The address of the MLflow store that runs go into."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    # `sqlite:///mlflow.db`, MLflow's own default, means the repository's database, even in a copy that DVC works in.
    path = given.removeprefix("sqlite:///")
    names_own = given.startswith("sqlite:///") and (repository() / path).resolve() == repository() / "mlflow.db"
    return _own_uri() if names_own or not given else given


def is_local() -> bool:
    """Whether runs go into the repository's own database."""
    # The address is compared, because MLflow itself sets the variable after `set_tracking_uri`.
    return tracking_uri() == _own_uri()


def experiment(name: str) -> tuple[str, set[str]] | None:
    """The id of an experiment in the local database and the keys of its tags; None if the experiment does not exist.

    Raises:
        UnknownSchema: the tables cannot be read here; MLflow's client must be asked.
    """
    with _database() as database:
        row = database.execute("select experiment_id from experiments where name = ?", (name,)).fetchone()
        tags = database.execute("select key from experiment_tags where experiment_id = ?", row or (None,))
        return (str(row[0]), {key for (key,) in tags.fetchall()}) if row else None


def _own_uri() -> str:
    return f"sqlite:///{repository() / 'mlflow.db'}"


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """Open the local database if its revision was tested. Changes are committed when the block succeeds.

    Raises:
        UnknownSchema: the database is missing or damaged, or its tables have another revision.
    """
    path = repository() / "mlflow.db"
    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as connection,
            connection,
        ):
            revisions = {revision for (revision,) in connection.execute("select version_num from alembic_version")}
            if not revisions or not revisions <= KNOWN_REVISIONS:
                raise UnknownSchema(f"{path} has the schema revision {', '.join(revisions) or 'none'}")
            yield connection
    except sqlite3.Error as error:
        raise UnknownSchema(f"{path}: {error}") from None


def follow_the_folder() -> bool:
    """Correct the paths of artifacts in a database that was moved or copied with its folder.

    MLflow stores absolute paths and has no command to change them. Tables of another revision are left alone; then
    `connect` tells the user what to do.

    Returns:
        Whether anything was changed.
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
                    # Table and column are constants of this file; the values are bound.
                    statement = f"update {table} set {column} = ? || substr({column}, ?) where instr({column}, ?) = 1"  # noqa: S608
                    database.execute(statement, (f"{new}/mlruns", len(f"{old}/mlruns") + 1, f"{old}/mlruns"))
                database.execute("update experiment_tags set value = ? where key = ?", (new, FOLDER_TAG))
                changed = True
    except UnknownSchema:
        return False
    return changed


def pictures(name: str) -> dict[tuple[str, int], Path]:
    """The figures of a model, by name and step in a run's image grid.

    The step is 0. Two pictures from before and after the training share a name and have the steps 0 and 1, so that one
    slider serves all runs.
    """
    paths = {path.stem: path for path in sorted((FIGURES / name).glob("*.png"))}
    return {
        (stem.removesuffix(BEFORE_TRAINING), int(f"{stem}{BEFORE_TRAINING}" in paths)): path
        for stem, path in paths.items()
    }


def artifacts(folder: Path) -> dict[str, Path]:
    """The artifacts of a result's run, except its image grid: artifact -> local file."""
    own = {name: folder / name for name in RESULT_FILES}
    drawn = {f"figures/{path.name}": path for path in pictures(folder.name).values()}
    return own | {"metrics.json": METRICS / f"{folder.name}.json"} | drawn


def run_files(folder: Path) -> set[str]:
    """The names of all files in a complete run of a result; a picture of the image grid is `images/NAME+step+STEP`."""
    return set(artifacts(folder)) | {f"images/{name}+step+{step}" for name, step in pictures(folder.name)}


def published_digest(folder: Path) -> str:
    """SHA-256 over everything that a run shows of its result: metrics, pictures, the template of the description."""
    shown = [METRICS / f"{folder.name}.json", *pictures(folder.name).values()]
    digests = {str(path): sha256_of(path) for path in shown if path.exists()}
    return digest_of(digests | {DESCRIPTION_TEMPLATE.name: sha256_of(DESCRIPTION_TEMPLATE)})


def named_as_run_files(names: Iterable[str]) -> set[str]:
    """Artifacts of a run by their names in `run_files`. MLflow adds time, number and thumbnail to a grid picture."""
    return {path.partition("+timestamp")[0] for path in names if not path.endswith(".webp")}


def _files_in(location: str) -> set[str]:
    root = Path(location)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def holds(folders: dict[str, Path], champion_sha256: str | None) -> bool:
    """Whether the local database certainly has a complete run of each result, and the champion under its alias.

    Args:
        folders: the result folders, by `result_digest`.
        champion_sha256: the SHA-256 of the champion's ONNX file; None without a champion.

    Returns:
        False also if a run was deleted or is still running, or if the database cannot be read here. Then MLflow's
        client must be asked.
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
