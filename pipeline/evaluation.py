"""How good a model is, and how sure one can be: accuracies, intervals, paired tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest
from torch import Tensor

from pipeline.car_truck import SPLITS, Dataset
from pipeline.models import Classifier

CONFIDENCE = 0.95


class Metrics(BaseModel):
    """The figures every model has, under the same names; `_low` and `_high` bound the test accuracy (Wilson, 95 %)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_accuracy: float
    validation_accuracy: float | None = None
    test_accuracy: float
    test_accuracy_low: float
    test_accuracy_high: float
    seconds: float
    parameters: int
    frozen_validation_accuracy: float | None = None
    frozen_test_accuracy: float | None = None

    def summary(self) -> str:
        """The accuracies in one line."""
        validation = "" if self.validation_accuracy is None else f", validation {self.validation_accuracy:.2%}"
        test = f"test {self.test_accuracy:.2%} ({self.test_accuracy_low:.1%} to {self.test_accuracy_high:.1%})"
        return f"train {self.train_accuracy:.2%}{validation}, {test}; {self.seconds:.1f} s"


def predict_logits(model: Classifier, images: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """Logits float32 `[N]` of uint8 images `[N, 32, 32, 3]`, in float32 and evaluation mode; the mode is put back."""
    was_training = model.training
    model.eval().to(device)
    try:
        return in_batches(model, images, device)
    finally:
        model.train(was_training)


@torch.inference_mode()
def in_batches(
    function: Callable[[Tensor], Tensor], images: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float32]:
    """`function` over uint8 images `[N, 32, 32, 3]` on `device`, as one float32 array `[N, ...]`."""
    # On a CPU the response maps of few images stay in its caches; a GPU wants many at once.
    size = 128 if device.type == "cuda" else 16
    starts = range(0, len(images), size)
    batches = [torch.from_numpy(np.array(images[start : start + size])) for start in starts]
    outputs = [function(batch.to(device)).float().cpu() for batch in batches]
    return torch.cat(outputs).numpy() if outputs else np.zeros(0, np.float32)


def predictions_table(dataset: Dataset, logits: NDArray[np.float32]) -> pd.DataFrame:
    """One row an image: id, split, label, probability of label 1."""
    probabilities = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return dataset.manifest[["id", "split", "label"]].assign(probability=probabilities)


def predicted(predictions: pd.DataFrame) -> pd.Series:
    """The label, 0 or 1, that each row of a predictions table says; a probability of exactly one half is label 0."""
    return (predictions["probability"] > 0.5).astype(int)


def correct(predictions: pd.DataFrame) -> pd.Series:
    """Whether each row of a predictions table is right."""
    return predicted(predictions) == predictions["label"]


def split_accuracies(predictions: pd.DataFrame) -> dict[str, float | None]:
    """The share of right answers on each split; None where a split is empty."""
    right = correct(predictions).groupby(predictions["split"]).mean()
    return {split: float(right[split]) if split in right else None for split in SPLITS}


def measure(predictions: pd.DataFrame, model: Classifier, seconds: float, frozen: dict[str, float | None]) -> Metrics:
    """The figures of a model out of its predictions table; `frozen` holds those of its head on frozen layers."""
    right = correct(predictions)
    accuracy = split_accuracies(predictions)
    test = right[predictions["split"] == "test"]
    low, high = wilson(int(test.sum()), len(test))
    return Metrics.model_validate(
        {f"{split}_accuracy": value for split, value in accuracy.items()}
        | {"test_accuracy_low": low, "test_accuracy_high": high, "seconds": round(seconds, 1)}
        | {"parameters": sum(weight.numel() for weight in model.parameters())}
        | frozen
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927)."""
    interval: Any = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> float:
    """McNemar's exact test: the p-value for two models being equally often right on the same images (bool `[N]` each).

    Only the images that exactly one of them gets right count; under equality each is a fair coin (McNemar 1947).
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
