"""What a training leaves in models/NAME, without torch: the card, the curves, the columns of its tables.

model.safetensors           the weights
card.json                   what the model is, and how to rebuild it (`ModelCard`)
predictions.parquet         the answer to every image: id, split, label, probability of label 1
predictions-frozen.parquet  the same of a head on frozen layers, where there was one; validation and test images
history.csv                 the training curves, a row an epoch (`Epoch`)
first-filters.safetensors   the filters of the first convolution before the training, where there is one
run.json                    the run in MLflow (`results.RunRecord`); it alone does not count for the result's digest
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

    Losses are mean binary cross-entropies; the one on training images is measured against the smoothed targets. The
    values for validation are None without validation images. The learning rate is the last parameter group's, at the
    start of the epoch.
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
    """What a model is and where it comes from.

    Attributes:
        approach: its module in pipeline/approaches; `architecture` are the arguments that build its network.
        classes: CIFAR-10's own names of the classes, label 0 first; `class_names` are the names that people see.
        recipe: the params that the training read.
        device: cpu or cuda; `hardware` is its name, `precision` what it trained in, for example bfloat16 (AVX512_BF16).
        parameters: how many numbers the network has.
        seconds: that the training took.
        pretrained_sha256: the digest of the layers that it started from; None where it started from nothing.
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
