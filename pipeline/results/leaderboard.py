"""All models side by side. Validation ranks them and chooses the champion; test gives intervals and paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.errors import PipelineError
from pipeline.base.files import atomic, write_json, write_text
from pipeline.data.dataset import SPLITS, Dataset
from pipeline.results import known_facts
from pipeline.results.metrics import Metrics, correct, mcnemar, measure, wilson
from pipeline.results.result import Result, result_digest
from pipeline.results.templating import render


def build(results: list[Result], dataset: Dataset) -> dict[str, Any]:
    """The leaderboard as a document: champion, one entry per model (best validation first), slices, people's accuracy.

    Raises:
        PipelineError: a result was made from other data than `dataset`.
    """
    for result in results:
        same = (
            result.predictions[["id", "split", "label"]]
            .astype(object)
            .equals(dataset.manifest[["id", "split", "label"]].astype(object))
        )
        if result.card.dataset_digest != dataset.digest or not same:
            raise PipelineError(f"{result.folder} was made from other data than data/dataset: run `dvc repro`")
    applies = known_facts.apply_to(dataset.classes)
    slices = _slices(dataset, applies)
    metrics = {result.name: measure(result) for result in results}
    ranked = sorted(results, key=lambda result: _rank(metrics[result.name]), reverse=True)
    best, models = ranked[0], [_entry(result, metrics[result.name], slices, dataset.classes) for result in ranked]
    for entry, result, below in zip(models, ranked, ranked[1:], strict=False):
        entry["mcnemar_p_against_next"] = mcnemar(_test_right(result), _test_right(below))
    people = {"individual": known_facts.HUMAN_INDIVIDUAL, "majority": known_facts.HUMAN_MAJORITY} if applies else {}
    return {
        "champion": best.name,
        "chosen_by": f"{'train' if metrics[best.name].validation_accuracy is None else 'validation'}_accuracy",
        "class_names": dataset.class_names,
        "dataset_digest": dataset.digest,
        "images": {split: len(dataset.rows(split)) for split in SPLITS},
        "slices": {name: int(rows.sum()) for name, rows in slices.items()},
        "people": people,
        "hardware": sorted({result.card.hardware for result in results}),
        "precisions": sorted({result.card.precision for result in results}),
        "versions": best.card.versions,
        "seeds": sorted({result.card.seed for result in results}),
        "models": models,
    }


def _rank(metrics: Metrics) -> tuple[float, float]:
    """The sort key: validation accuracy. Train accuracy decides between equals, or without a validation split."""
    return metrics.validation_accuracy or 0.0, metrics.train_accuracy


def _test_right(result: Result) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether the model gets each test image right, bool `[n]`."""
    return correct(result.test).to_numpy(bool)


def _slices(dataset: Dataset, known: bool) -> dict[str, pd.Series]:
    """Parts of the test split by name, each with one bool per image of the manifest."""
    if not known:
        return {}
    test = dataset.manifest["batch"] == "test_batch"
    row = dataset.manifest["row"]
    return {
        "without_disputed_labels": test & ~row.isin(known_facts.DISPUTED_TEST_ROWS),
        "without_near_duplicates": test & ~row.isin(known_facts.NEAR_DUPLICATE_TEST_ROWS),
    }


def _entry(result: Result, metrics: Metrics, slices: dict[str, pd.Series], classes: list[str]) -> dict[str, Any]:
    """The entry of one model."""
    card, right = result.card, correct(result.predictions)
    entry: dict[str, Any] = {"name": card.name, "title": card.title}
    for split in SPLITS:
        of_split = right[result.predictions["split"] == split]
        share, low, high = None, None, None
        if len(of_split):
            share, (low, high) = float(of_split.mean()), wilson(int(of_split.sum()), len(of_split))
        entry |= {f"{split}_accuracy": share, f"{split}_low": low, f"{split}_high": high}
    for name, rows in slices.items():
        entry[f"test_{name}"] = float(right[rows.to_numpy()].mean())
    train, test = known_facts.lecture_of(card.name, classes) or (None, None)
    entry |= {"lecture_train": train, "lecture_test": test, "frozen_test_accuracy": metrics.frozen_test_accuracy}
    entry |= {"parameters": card.parameters, "seconds": card.seconds, "device": card.device}
    entry |= {"precision": card.precision, "result_digest": result_digest(result.folder)}
    return entry | {"mcnemar_p_against_next": None}


def write(document: dict[str, Any], folder: Path) -> str:
    """Write leaderboard.json, .csv and .md into `folder`; returns the Markdown."""
    write_json(folder / "leaderboard.json", document)
    with atomic(folder / "leaderboard.csv") as temporary:
        pd.DataFrame(document["models"]).to_csv(temporary, index=False)
    text = render(Path(__file__).with_name("leaderboard.md"), **document, distinct=distinct)
    write_text(folder / "leaderboard.md", text)
    return text


def distinct(p_value: float) -> str:
    """The verdict of a paired test in words, at the 5 % level."""
    return "a real difference" if p_value < 0.05 else "no more than noise"
