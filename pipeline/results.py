"""The one shape of a result: models/<name>/ with weights, card, metrics, predictions, curves and figures.

model.safetensors     the weights
card.json             what the model is, and how to rebuild it (`ModelCard`)
metrics.json          the figures every model has (`evaluation.Metrics`)
predictions.parquet   image id, split, label, probability of label 1
history.csv           the training curves, a row an epoch (`training.Epoch`)
confusion.csv         truth and prediction of each test image by name, for `dvc plots`
figures/              pictures
run.json              the run in MLflow (`RunRecord`, written by `tracking`)
"""

from __future__ import annotations

import hashlib
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
from safetensors.torch import load_file, save, save_file
from torch import nn

from pipeline.car_truck import Dataset
from pipeline.devices import describe_device
from pipeline.errors import PipelineError
from pipeline.evaluation import Metrics, measure, predicted, predictions_table
from pipeline.files import atomic, read_json, sha256_of, write_json
from pipeline.models import Architecture, Classifier, build
from pipeline.training import Epoch

MODELS = Path("models")
PREDICTION_COLUMNS = ["id", "split", "label", "probability"]
HISTORY_COLUMNS = [column.name for column in fields(Epoch)]
DIGESTED = ("model.safetensors", "card.json", "metrics.json", "predictions.parquet", "history.csv")
RECORDED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas")


class ModelCard(BaseModel):
    """What a model is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    architecture: Architecture
    classes: list[str]
    class_names: list[str]
    dataset_digest: str
    seed: int
    recipe: dict[str, Any]
    device: str
    hardware: str
    weights_sha256: str
    pretrained_sha256: str | None = None
    versions: dict[str, str]


class RunRecord(BaseModel):
    """The run of a training: what MLflow knows of it that no other file of the result holds.

    Attributes:
        run_id: in the MLflow that saw the training; None where none could be reached.
        started, ended: milliseconds since 1970.
        result_digest: `result_digest` of the folder; the run of a result is the one that has it as a tag.
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
    """A result folder, read and checked."""

    folder: Path
    card: ModelCard
    metrics: Metrics
    predictions: pd.DataFrame
    history: pd.DataFrame

    @property
    def test(self) -> pd.DataFrame:
        """The predictions for the test images."""
        return self.predictions[self.predictions["split"] == "test"]

    @property
    def smoothed(self) -> bool:
        """Whether labels were smoothed while it trained."""
        return bool(self.card.recipe.get("training", {}).get("label_smoothing"))

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
    """What a training gives.

    Attributes:
        seconds: that it took.
        frozen_accuracies: what a head on frozen layers reached.
        first_filters: the weights `[filters, C, H, W]` of the first convolution before the first epoch.
        pretrained_sha256: `digest_of_weights` of the layers that it started from; None where it started from nothing.
    """

    model: Classifier
    seconds: float
    history: list[Epoch] = field(default_factory=list)
    frozen_accuracies: dict[str, float | None] = field(default_factory=dict)
    first_filters: torch.Tensor | None = None
    pretrained_sha256: str | None = None


def digest_of_weights(module: nn.Module) -> str:
    """SHA-256 over a module's weights and buffers, as safetensors writes them."""
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    return hashlib.sha256(save(contiguous)).hexdigest()


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
    with atomic(folder / "confusion.csv") as temporary:
        _named(predictions[predictions["split"] == "test"], dataset.class_names).to_csv(temporary, index=False)
    metrics = measure(predictions, model, trained.seconds, trained.frozen_accuracies)
    write_json(folder / "metrics.json", metrics.model_dump(exclude_none=True))
    card = ModelCard(
        name=name,
        title=title,
        architecture=model.architecture,
        classes=dataset.classes,
        class_names=dataset.class_names,
        dataset_digest=dataset.digest,
        seed=seed,
        recipe=recipe,
        device=device.type,
        hardware=describe_device(device),
        weights_sha256=sha256_of(folder / "model.safetensors"),
        pretrained_sha256=trained.pretrained_sha256,
        versions={package: version(package) for package in RECORDED_PACKAGES},
    )
    write_json(folder / "card.json", card.model_dump())
    return Result(folder, card, metrics, predictions, rows)


def _named(predictions: pd.DataFrame, class_names: list[str]) -> pd.DataFrame:
    """Truth and prediction of each row, by the names of the classes."""
    return pd.DataFrame(
        {
            name: [class_names[label] for label in labels]
            for name, labels in (("truth", predictions["label"]), ("prediction", predicted(predictions)))
        }
    )


def result_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the files that make up a result.

    Raises:
        PipelineError: one of them is missing.
    """
    for name in DIGESTED:
        if not (folder / name).exists():
            raise PipelineError(f"{folder / name} is missing: run `dvc repro`, or `dvc checkout`")
    lines = [f"{name} {sha256_of(folder / name)}\n" for name in DIGESTED]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_record(folder: Path) -> RunRecord:
    """Read run.json of a result folder.

    Raises:
        PipelineError: it is missing or damaged.
    """
    path = folder / "run.json"
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
