"""All models side by side: ranked and chosen on validation, reported on test, with intervals and paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import known_facts
from pipeline.car_truck import SPLITS, Dataset
from pipeline.errors import PipelineError
from pipeline.evaluation import correct, mcnemar, wilson
from pipeline.files import atomic, write_json
from pipeline.results import Result
from pipeline.templating import render


def build(results: list[Result], dataset: Dataset) -> dict[str, Any]:
    """The leaderboard as a document: champion, one entry a model (best on validation first), slices, people's figures.

    Raises:
        PipelineError: a result is of other data than `dataset`.
    """
    for result in results:
        same = (
            result.predictions[["id", "split", "label"]]
            .astype(object)
            .equals(dataset.manifest[["id", "split", "label"]].astype(object))
        )
        if result.card.dataset_digest != dataset.digest or not same:
            raise PipelineError(f"{result.folder} was made from other data than data/car_truck: run `dvc repro`")
    applies = known_facts.apply_to(dataset.classes)
    slices = _slices(dataset, applies)
    ranked = sorted(results, key=_rank, reverse=True)
    models = [_entry(result, slices, dataset.classes) for result in ranked]
    for entry, result, below in zip(models, ranked, ranked[1:], strict=False):
        entry["mcnemar_p_against_next"] = mcnemar(_test_right(result), _test_right(below))
    people = {"individual": known_facts.HUMAN_INDIVIDUAL, "majority": known_facts.HUMAN_MAJORITY} if applies else {}
    return {
        "champion": ranked[0].card.name,
        "chosen_by": "validation_accuracy" if ranked[0].metrics.validation_accuracy is not None else "train_accuracy",
        "class_names": dataset.class_names,
        "dataset_digest": dataset.digest,
        "images": {split: len(dataset.rows(split)) for split in SPLITS},
        "slices": {name: int(rows.sum()) for name, rows in slices.items()},
        "people": people,
        "hardware": sorted({result.card.hardware for result in results}),
        "versions": ranked[0].card.versions,
        "seeds": sorted({result.card.seed for result in results}),
        "models": models,
    }


def _rank(result: Result) -> tuple[float, float]:
    """Best on validation first; train decides only between equals, or where there is no validation split."""
    return result.metrics.validation_accuracy or 0.0, result.metrics.train_accuracy


def _test_right(result: Result) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which test images the model gets right, bool `[n]`."""
    return correct(result.test).to_numpy(bool)


def _slices(dataset: Dataset, known: bool) -> dict[str, pd.Series]:
    """Parts of the test split by name, each a bool per image of the manifest."""
    if not known:
        return {}
    test = dataset.manifest["batch"] == "test_batch"
    row = dataset.manifest["row"]
    return {
        "without_disputed_labels": test & ~row.isin(known_facts.DISPUTED_TEST_ROWS),
        "without_near_duplicates": test & ~row.isin(known_facts.NEAR_DUPLICATE_TEST_ROWS),
    }


def _entry(result: Result, slices: dict[str, pd.Series], classes: list[str]) -> dict[str, Any]:
    """One model's line."""
    right = correct(result.predictions)
    entry: dict[str, Any] = {"name": result.card.name, "title": result.card.title}
    for split in SPLITS:
        of_split = right[result.predictions["split"] == split]
        if len(of_split):
            low, high = wilson(int(of_split.sum()), len(of_split))
            entry |= {f"{split}_accuracy": float(of_split.mean()), f"{split}_low": low, f"{split}_high": high}
        else:
            entry |= {f"{split}_accuracy": None, f"{split}_low": None, f"{split}_high": None}
    for name, rows in slices.items():
        entry[f"test_{name}"] = float(right[rows.to_numpy()].mean())
    train, test = known_facts.lecture_of(result.card.name, classes) or (None, None)
    entry |= {"lecture_train": train, "lecture_test": test}
    entry |= {"parameters": result.metrics.parameters, "seconds": result.metrics.seconds, "device": result.card.device}
    entry |= {"frozen_test_accuracy": result.metrics.frozen_test_accuracy, "mcnemar_p_against_next": None}
    return entry


def write(document: dict[str, Any], folder: Path) -> str:
    """Write leaderboard.json, .csv and .md into `folder`; returns the Markdown."""
    write_json(folder / "leaderboard.json", document)
    with atomic(folder / "leaderboard.csv") as temporary:
        pd.DataFrame(document["models"]).to_csv(temporary, index=False)
    text = render("leaderboard.md", **document, distinct=distinct)
    with atomic(folder / "leaderboard.md") as temporary:
        temporary.write_text(text)
    return text


def distinct(p_value: float) -> str:
    """A paired test's verdict in words, at the 5 % level."""
    return "a real difference" if p_value < 0.05 else "no more than noise"
