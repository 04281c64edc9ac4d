"""The files that a training writes into models/NAME: their names, the card, the columns. This module needs no torch.

model.safetensors           the weights
card.json                   the description of the model, enough to rebuild it (`ModelCard`)
predictions.parquet         the answer to every image: id, split, label, probability of label 1
predictions-frozen.parquet  the answers of a head on frozen layers, if any, to the validation and test images
history.csv                 the training curves, one row per epoch (`Epoch`)
first-filters.safetensors   the filters of the first convolution, if any, before the training
run.json                    the run in MLflow (`results.result.RunRecord`); the only file outside the result's digest
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel, ConfigDict

WEIGHTS, CARD, PREDICTIONS, HISTORY = "model.safetensors", "card.json", "predictions.parquet", "history.csv"
FROZEN_PREDICTIONS, FIRST_FILTERS, RUN = "predictions-frozen.parquet", "first-filters.safetensors", "run.json"
PREDICTION_COLUMNS = ["id", "split", "label", "probability"]


@dataclass(frozen=True)
class Epoch:
    """One row of the training curves.

    Losses are mean binary cross-entropies; the training loss uses the smoothed targets. The validation values are None
    without validation images. The learning rate is that of the last parameter group at the start of the epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    images_per_second: float
    seconds: float


HISTORY_COLUMNS = [column.name for column in fields(Epoch)]


class ModelCard(BaseModel):
    """The description of a model and its training.

    Attributes:
        approach: the name of its module in pipeline/approaches.
        architecture: the arguments that build its network.
        classes: CIFAR-10's own names of the classes, label 0 first.
        class_names: the names that people see, label 0 first.
        recipe: the params that the training used.
        device: cpu or cuda.
        hardware: the name of the device.
        precision: the precision of the training, for example bfloat16 (AVX512_BF16).
        parameters: the number of the network's parameters.
        seconds: the duration of the training.
        pretrained_sha256: the digest of the pretrained layers; None without pretrained layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    approach: str
    architecture: dict[str, Any]
    classes: list[str]
    class_names: list[str]
    dataset_digest: str
    seed: int
    recipe: dict[str, Any]
    device: str
    hardware: str
    precision: str
    parameters: int
    seconds: float
    weights_sha256: str
    pretrained_sha256: str | None = None
    versions: dict[str, str]
