"""The one shape of a result: models/<name>/ with weights, card, metrics, predictions, curves and figures.

model.safetensors     the weights
card.json             what the model is, and how to rebuild it (`ModelCard`)
metrics.json          the figures every model has (`evaluation.Metrics`)
predictions.parquet   image id, split, label, probability of label 1
history.csv           the training curves, a row an epoch (`training.Epoch`)
figures/              pictures
run.json              the run in MLflow (written by `tracking`)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.car_truck import Dataset
from pipeline.devices import describe_device
from pipeline.errors import PipelineError
from pipeline.evaluation import Metrics, measure, predictions_table
from pipeline.files import atomic, read_json, sha256_of, write_json
from pipeline.models import Architecture, Classifier, build
from pipeline.training import Epoch

MODELS = Path("models")
PREDICTION_COLUMNS = ["id", "split", "label", "probability"]
HISTORY_COLUMNS = [column.name for column in fields(Epoch)]
RECORDED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas")


class ModelCard(BaseModel):
    """What a model is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    architecture: Architecture
    class_names: list[str]
    dataset_digest: str
    seed: int
    recipe: dict[str, Any]
    device: str
    hardware: str
    weights_sha256: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Result:
    """A result folder, read and checked."""

    folder: Path
    card: ModelCard
    metrics: Metrics
    predictions: pd.DataFrame
    history: pd.DataFrame

    def model(self) -> Classifier:
        """The module rebuilt from card and weights, in evaluation mode."""
        path = self.folder / "model.safetensors"
        if not path.exists() or sha256_of(path) != self.card.weights_sha256:
            raise PipelineError(f"{path} is missing, or not the one that card.json names by SHA-256: run `dvc repro`")
        model = build(self.card.architecture)
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise PipelineError(f"{path} does not fit its card.json: {str(error).splitlines()[0]}") from None
        return model.eval()


@dataclass(frozen=True)
class Trained:
    """What a training gives: the model, its curves, the seconds it took, and what a head on frozen layers reached."""

    model: Classifier
    seconds: float
    history: list[Epoch] = field(default_factory=list)
    frozen_accuracies: dict[str, float | None] = field(default_factory=dict)


def write(
    name: str,
    title: str,
    trained: Trained,
    dataset: Dataset,
    logits: NDArray[np.float32],
    *,
    seed: int,
    device: torch.device,
    recipe: dict[str, Any],
) -> Result:
    """Write the result folder of a trained model, figures left to `figures` and run.json to `tracking`.

    Args:
        logits: the model's answers on all of the dataset's images, in their order.
        recipe: the params that made it.
    """
    model = trained.model
    folder = MODELS / name
    weights = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
    with atomic(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    predictions = predictions_table(dataset, logits)
    with atomic(folder / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    rows = pd.DataFrame([asdict(epoch) for epoch in trained.history], columns=HISTORY_COLUMNS)
    with atomic(folder / "history.csv") as temporary:
        rows.to_csv(temporary, index=False)
    metrics = measure(predictions, model, trained.seconds, trained.frozen_accuracies)
    write_json(folder / "metrics.json", metrics.model_dump(exclude_none=True))
    card = ModelCard(
        name=name,
        title=title,
        architecture=model.architecture,
        class_names=dataset.class_names,
        dataset_digest=dataset.digest,
        seed=seed,
        recipe=recipe,
        device=device.type,
        hardware=describe_device(device),
        weights_sha256=sha256_of(folder / "model.safetensors"),
        versions={package: version(package) for package in RECORDED_PACKAGES},
    )
    write_json(folder / "card.json", card.model_dump())
    return Result(folder, card, metrics, predictions, rows)


def read(folder: Path) -> Result:
    """Read a result folder.

    Raises:
        PipelineError: a file is missing or damaged; the message names it.
    """
    try:
        card = ModelCard.model_validate(read_json(folder / "card.json"))
        metrics = Metrics.model_validate(read_json(folder / "metrics.json"))
        path = folder / "predictions.parquet"
        predictions = pd.read_parquet(path)
        path = folder / "history.csv"
        history = pd.read_csv(path)
    except ValidationError as error:
        what = "card.json" if error.title == "ModelCard" else "metrics.json"
        raise PipelineError(f"{folder / what} is damaged: {error.errors()[0]['msg']}; run `dvc repro`") from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path} is missing or damaged ({error}): run `dvc repro`") from None
    for name, table, columns in (
        ("predictions.parquet", predictions, PREDICTION_COLUMNS),
        ("history.csv", history, HISTORY_COLUMNS),
    ):
        if list(table.columns) != columns:
            raise PipelineError(
                f"{folder / name} is damaged: it has other columns than {', '.join(columns)}; run `dvc repro`"
            )
    return Result(folder, card, metrics, predictions, history)
