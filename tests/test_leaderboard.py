from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import PipelineError
from pipeline.learning.card import ModelCard
from pipeline.results import known_facts, leaderboard
from pipeline.results.metrics import wilson
from pipeline.results.result import Result


@pytest.fixture(autouse=True)
def _no_folders(monkeypatch):
    """The results of these tests are tables without files."""
    monkeypatch.setattr(leaderboard, "result_digest", lambda _: "")


def make(dataset, name: str, wrong: dict[str, int]) -> Result:
    """A result that gets the first `wrong[split]` images of each split wrong."""
    labels = dataset.labels
    probability = np.where(labels == 1, 0.9, 0.1)
    for split, count in wrong.items():
        rows = dataset.rows(split)[:count]
        probability[rows] = 1 - probability[rows]
    predictions = dataset.manifest[["id", "split", "label"]].assign(probability=probability)
    card = ModelCard(
        name=name,
        title=name,
        approach="baseline",
        architecture={},
        classes=dataset.classes,
        class_names=dataset.class_names,
        dataset_digest=dataset.digest,
        seed=0,
        recipe={},
        device="cpu",
        hardware="a CPU",
        precision="bfloat16 (AVX512_BF16)",
        parameters=10,
        seconds=1.0,
        weights_sha256="",
        versions={"torch": "2"},
    )
    return Result(None, card, predictions, pd.DataFrame())


def test_validation_chooses_the_champion_whatever_the_test_split_says(dataset):
    good_on_test = make(dataset, "good-on-test", {"validation": 10, "test": 0})
    good_on_validation = make(dataset, "good-on-validation", {"validation": 5, "test": 20})
    document = leaderboard.build([good_on_test, good_on_validation], dataset)
    assert document["champion"] == "good-on-validation"
    assert [model["name"] for model in document["models"]] == ["good-on-validation", "good-on-test"]
    assert document["chosen_by"] == "validation_accuracy"


def test_every_accuracy_has_its_interval(dataset):
    document = leaderboard.build([make(dataset, "one", {"test": 8})], dataset)
    (model,) = document["models"]
    assert model["test_accuracy"] == 32 / 40
    assert (model["test_low"], model["test_high"]) == wilson(32, 40)


def test_neighbours_are_tested_on_the_same_images(dataset):
    first, second = make(dataset, "first", {"test": 2}), make(dataset, "second", {"test": 10, "validation": 1})
    document = leaderboard.build([second, first], dataset)
    # the first 2 are wrong for both; 8 are wrong for the second alone: 2 / 2⁸
    assert document["models"][0]["mcnemar_p_against_next"] == pytest.approx(2 / 2**8)
    assert document["models"][1]["mcnemar_p_against_next"] is None


def test_slices_leave_out_the_known_flaws(dataset, monkeypatch):
    test = dataset.manifest[dataset.manifest["split"] == "test"]
    monkeypatch.setattr(known_facts, "DISPUTED_TEST_ROWS", tuple(test["row"].iloc[:4]))
    document = leaderboard.build([make(dataset, "one", {"test": 4})], dataset)
    assert document["slices"]["without_disputed_labels"] == 36
    assert document["models"][0]["test_without_disputed_labels"] == 1.0
    assert document["models"][0]["test_accuracy"] == 0.9


def test_other_classes_have_no_borrowed_figures(dataset):
    document = leaderboard.build(
        [make(dataset, "cnn-lecture", {})], dataclasses.replace(dataset, classes=["cat", "dog"])
    )
    assert document["slices"] == document["people"] == {}
    assert document["models"][0]["lecture_test"] is None


def test_a_result_of_other_data_is_refused(dataset):
    result = make(dataset, "one", {})
    other = dataclasses.replace(result, card=result.card.model_copy(update={"dataset_digest": "other"}))
    object.__setattr__(other, "folder", "models/one")
    with pytest.raises(PipelineError, match="models/one was made from other data"):
        leaderboard.build([other], dataset)


def test_the_files_say_the_same(dataset, tmp_path):
    results = [make(dataset, "cnn-lecture", {"test": 4}), make(dataset, "baseline", {"test": 12, "validation": 9})]
    text = leaderboard.write(leaderboard.build(results, dataset), tmp_path)
    assert (tmp_path / "leaderboard.md").read_text() == text
    assert "| **cnn-lecture** | 100.00 % | 100.00 % | 90.00 % |" in text
    assert "1 s, bfloat16 (AVX512_BF16) |" in text, "a figure stands beside its precision"
    assert "*people, individual*" in text
    assert "*the lecture's baseline* | 72 % | | 63 %" in text
    assert pd.read_csv(tmp_path / "leaderboard.csv")["test_accuracy"].tolist() == [0.9, 0.7]


def test_the_known_flaws_are_as_many_as_published():
    assert len(set(known_facts.DISPUTED_TEST_ROWS)) == 11
    assert len(set(known_facts.NEAR_DUPLICATE_TEST_ROWS)) == 65
