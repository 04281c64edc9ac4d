"""How good a model is, and how certain that is: accuracies, intervals, paired tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

from pipeline.data.dataset import SPLITS
from pipeline.results.result import Result

CONFIDENCE = 0.95


class Metrics(BaseModel):
    """The figures that every model has; `_low` and `_high` bound the test accuracy (Wilson, 95 %)."""

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
        return f"train {self.train_accuracy:.2%}{validation}, {test}; trained in {self.seconds:.1f} s"


def measure(result: Result) -> Metrics:
    """The figures of a result, from its predictions."""
    right = correct(result.test)
    low, high = wilson(int(right.sum()), len(right))
    accuracies = {f"{split}_accuracy": share for split, share in split_accuracies(result.predictions).items()}
    if result.frozen is not None:
        frozen = split_accuracies(result.frozen)
        accuracies |= {f"frozen_{split}_accuracy": frozen[split] for split in ("validation", "test")}
    return Metrics.model_validate(
        accuracies
        | {"test_accuracy_low": low, "test_accuracy_high": high}
        | {"seconds": result.card.seconds, "parameters": result.card.parameters}
    )


def predicted(predictions: pd.DataFrame) -> pd.Series:
    """The predicted label, 0 or 1, of each row of a predictions table; a probability of exactly 0.5 gives label 0."""
    return (predictions["probability"] > 0.5).astype(int)


def correct(predictions: pd.DataFrame) -> pd.Series:
    """Whether each row of a predictions table is right."""
    return predicted(predictions) == predictions["label"]


def split_accuracies(predictions: pd.DataFrame) -> dict[str, float | None]:
    """The share of right answers on each split; None for an empty split."""
    right = correct(predictions).groupby(predictions["split"]).mean()
    return {split: float(right[split]) if split in right else None for split in SPLITS}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927)."""
    interval: Any = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> float:
    """McNemar's exact test: the p-value of the hypothesis that two models are equally often right (McNemar 1947).

    Only those images count that exactly one of the two models gets right. If the hypothesis holds, each such image is
    the toss of a fair coin.

    Args:
        first_right, second_right: whether each model gets each image right, bool `[N]`, for the same images.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def curves_table(results: list[Result]) -> pd.DataFrame:
    """The training curves of all models in one table: `model`, then the columns of history.csv."""
    parts = [result.history.assign(model=result.name) for result in results if len(result.history)]
    columns = ["model", *results[0].history.columns]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def confusion_table(results: list[Result]) -> pd.DataFrame:
    """Truth and prediction of each test image for all models, as names of classes."""
    parts = []
    for result in results:
        names = result.card.class_names
        labels = {"truth": result.test["label"], "prediction": predicted(result.test)}
        named = {column: values.map(dict(enumerate(names))) for column, values in labels.items()}
        parts.append(pd.DataFrame({"model": result.name, **named}))
    return pd.concat(parts, ignore_index=True)
