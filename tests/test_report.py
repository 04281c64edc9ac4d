from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import approaches
from pipeline.approaches.cnn import LectureCnn
from pipeline.base.files import read_json
from pipeline.data.dataset import Dataset
from pipeline.pictures import charts, figures
from pipeline.report import report
from pipeline.results import leaderboard
from pipeline.results.result import read
from pipeline.results.templating import render
from tests import projects


@pytest.fixture(scope="module")
def page(tmp_path_factory, small_dataset):
    folder = tmp_path_factory.mktemp("report")
    projects.make(folder, small_dataset)
    return folder


def test_the_worked_example_is_true():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    section = report.convolution(image, "car")
    patch = np.array(section["patch"])
    assert section["response"] == (patch * np.array([[0, -1, 1]] * 3)).sum()
    row, column = section["place"]
    gray = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(patch - gray[row : row + 3, column : column + 3]).max() <= 0.51


def test_an_edge_answers_to_its_own_filter_alone():
    step = torch.zeros(1, 8, 8)
    step[:, :, 4:] = 255
    assert report.respond(step, report.VERTICAL[None]).abs().max() == 3 * 255
    assert report.respond(step, report.VERTICAL.T[None]).abs().max() == 0


def test_the_diagram_has_the_shapes_of_the_slides():
    layers = LectureCnn("grayscale").layers()
    shapes = [(32, 32, 1), (26, 26, 32), (13, 13, 32), (9, 9, 64), (4, 4, 64), (2, 2, 64), (256,), (64,), (1,)]
    assert [layer.shape for layer in layers] == shapes
    assert sum(layer.parameters for layer in layers) == sum(w.numel() for w in LectureCnn("grayscale").parameters())


def test_the_page_needs_nothing_from_outside(page):
    text = (page / "reports/report.html").read_text()
    addresses = re.findall(r"(?:src|href)=\"([^\"]{0,40})", text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in text and "<script" not in text


def test_the_page_is_the_same_when_made_again(page, small_dataset):
    first = (page / "reports/report.html").read_text()
    with projects.working_in(page):
        projects.rank_package_and_report(projects.small_params(), small_dataset)
    assert (page / "reports/report.html").read_text() == first


def test_another_pair_of_classes_is_reported_without_the_lectures_figures(page, small_dataset):
    renamed = small_dataset.manifest["class_name"].map({"car": "cat", "truck": "<dog>"})
    other = Dataset(
        small_dataset.images,
        small_dataset.manifest.assign(class_name=renamed),
        ["cat", "dog"],
        ["cat", "<dog>"],
        small_dataset.digest,
    )
    results = [read(page / "models" / name) for name in projects.MODELS]
    results = [
        dataclasses.replace(one, card=one.card.model_copy(update={"class_names": ["cat", "<dog>"]})) for one in results
    ]
    networks = {one.name: approaches.rebuild(one.card, one.folder) for one in results}
    board = leaderboard.build(results, other)
    champion = read_json(page / "models/champion/card.json")
    with projects.working_in(page):
        text = report.build(results, networks, other, projects.small_params(), board, champion, None)
    assert "the lecture</th>" not in text
    assert "97.68" not in text
    assert "<dog>" not in text, "what comes from params is escaped"
    assert "<h3>One cat</h3>" in text


def test_percent_shows_a_missing_figure_as_a_dash():
    text = render(Path(leaderboard.__file__).with_name("leaderboard.md"), **empty_board())
    assert "| **one** | 50.00 % | – | 50.00 % |" in text


def empty_board() -> dict:
    model = {
        "name": "one", "train_accuracy": 0.5, "validation_accuracy": None, "test_accuracy": 0.5, "test_low": 0.4,
        "test_high": 0.6, "parameters": 10, "seconds": 1.0, "precision": "float32", "lecture_test": None,
        "lecture_train": None,
        "frozen_test_accuracy": None, "mcnemar_p_against_next": None,
    }  # fmt: skip
    return {
        "models": [model], "champion": "one", "people": {}, "hardware": ["a CPU"],
        "precisions": ["float32"], "versions": {"torch": "2"},
        "seeds": [0], "dataset_digest": "0" * 64, "chosen_by": "train_accuracy", "images": {"train": 1, "test": 1},
        "slices": {}, "distinct": str,
    }  # fmt: skip


def test_reliability_counts_every_image_once():
    test = pd.DataFrame({"label": [0, 1, 1, 0], "probability": [0.0, 1.0, 0.95, 0.5]})
    figure = charts.reliability(test, ["car", "truck"], "one")
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 4


def test_the_most_confident_mistakes_come_first():
    test = pd.DataFrame({"id": range(4), "label": [0, 1, 1, 0], "probability": [0.9, 0.4, 0.8, 0.99]})
    assert list(figures.most_confident_mistakes(test)["id"]) == [3, 0, 1]


def test_the_maps_that_vary_most_are_shown():
    maps = torch.zeros(1, 4, 3, 3)
    maps[0, 2, 0, 0], maps[0, 1, 0, 0] = 5, 1
    assert figures.most_varied(maps, 2).tolist() == [1, 2]
