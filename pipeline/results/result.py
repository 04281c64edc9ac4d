"""Reading and checking a result folder, models/NAME; `learning/card.py` lists its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.base.errors import PipelineError
from pipeline.base.files import MODELS, RESULTS, digest_of_files, read_json
from pipeline.base.help import dvc_stages
from pipeline.learning import card as files
from pipeline.learning.card import HISTORY_COLUMNS, PREDICTION_COLUMNS, ModelCard

REQUIRED = (files.WEIGHTS, files.CARD, files.PREDICTIONS, files.HISTORY)


class RunRecord(BaseModel):
    """run.json: the facts about the MLflow run of a training that no other file of the result holds.

    Attributes:
        run_id: the id of the run in the MLflow that saw the training; None if MLflow could not be reached.
        started, ended: milliseconds since 1970.
        result_digest: `result_digest` of the folder; the run has it as a tag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str | None = None
    run_name: str
    experiment: str
    started: int
    ended: int = 0
    tags: dict[str, str]
    result_digest: str = ""


@dataclass(frozen=True)
class Result:
    """A result folder, read and checked.

    Attributes:
        predictions: one row per image: id, split, label, probability of label 1.
        history: one row per epoch (`learning.card.Epoch`).
        frozen: the answers of a head on frozen layers, in the columns of `predictions`; None without such a head.
    """

    folder: Path
    card: ModelCard
    predictions: pd.DataFrame
    history: pd.DataFrame
    frozen: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def test(self) -> pd.DataFrame:
        """The predictions for the test images."""
        return self.predictions[self.predictions["split"] == "test"]

    @property
    def smoothed(self) -> bool:
        """Whether the labels were smoothed in the training."""
        return bool(self.card.recipe.get("training", {}).get("label_smoothing"))


def result_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the files that make up a result; run.json does not count.

    Raises:
        PipelineError: one of them is missing.
    """
    for name in REQUIRED:
        if not (folder / name).exists():
            raise PipelineError(f"{folder / name} is missing: run `dvc repro`, or `dvc checkout`")
    present = [path for path in folder.iterdir() if path.name != files.RUN and path.name[0] != "."]
    return digest_of_files(present, folder)


def read_record(folder: Path) -> RunRecord:
    """Read run.json of a result folder.

    Raises:
        PipelineError: it is missing or damaged.
    """
    path = folder / files.RUN
    try:
        return RunRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise PipelineError(f"{path} is damaged: {error.errors()[0]['msg']}; run `dvc repro`") from None


def read(folder: Path) -> Result:
    """Read a result folder.

    Raises:
        PipelineError: a file is missing or damaged; the message names it.
    """
    try:
        card = ModelCard.model_validate(read_json(folder / files.CARD))
    except ValidationError as error:
        raise PipelineError(f"{folder / files.CARD} is damaged: {error.errors()[0]['msg']}; run `dvc repro`") from None
    predictions = _table(folder / files.PREDICTIONS, PREDICTION_COLUMNS)
    frozen = folder / files.FROZEN_PREDICTIONS
    return Result(
        folder, card, predictions, _table(folder / files.HISTORY, HISTORY_COLUMNS),
        _table(frozen, PREDICTION_COLUMNS) if frozen.exists() else None,
    )  # fmt: skip


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path} is missing or damaged ({error}): run `dvc repro`") from None
    if list(table.columns) != columns:
        raise PipelineError(f"{path} is damaged: its columns are not {', '.join(columns)}; run `dvc repro`")
    return table


def listed() -> list[Path]:
    """The result folders that the stage `evaluate` depends on in dvc.yaml: the only list of all models.

    Raises:
        PipelineError: dvc.yaml is missing here, or lists no result folder.
    """
    dependencies = dvc_stages().get("evaluate", {}).get("deps", [])
    folders = [Path(path) for path in dependencies if Path(path).parent == MODELS]
    if not folders:
        raise PipelineError("dvc.yaml names no result folder in `evaluate`: run from the repository root")
    return folders


def evaluated() -> list[Result]:
    """The results that the stage `evaluate` has listed in reports/results.json.

    Raises:
        PipelineError: the list or a result is missing or damaged, or a result has changed since it was evaluated.
    """
    results = []
    for name, digest in read_json(RESULTS).items():
        if result_digest(MODELS / name) != digest:
            raise PipelineError(f"{MODELS / name} is not the result that reports/results.json lists: run `dvc repro`")
        results.append(read(MODELS / name))
    return results
