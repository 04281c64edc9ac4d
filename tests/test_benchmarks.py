from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from benchmarks import ablation, seeds, training
from benchmarks.page import table
from pipeline import approaches
from pipeline.data.dataset import save
from tests.conftest import ROOT


def test_a_table_has_a_rule_and_right_aligned_figures():
    assert table(["model", "accuracy"], [["cnn", "90 %"]]) == "| model | accuracy |\n| --- | ---: |\n| cnn | 90 % |\n"


def test_the_seeds_page_says_what_was_reached_and_what_was_not():
    runs = {
        "cnn-lecture": [
            {"accuracy": 0.90, "seconds": 70, "images_per_second": 4321.0, "utilisation": None},
            {"accuracy": 0.88, "seconds": 71, "images_per_second": 4000.0, "utilisation": None},
        ],
        "transfer": [{"accuracy": 0.978, "seconds": 300}, {"accuracy": 0.980, "seconds": 310}],
    }
    page = seeds.page(runs, torch.device("cpu"), "make seeds")
    assert "| cnn-lecture | 89.00% ± 1.41% | 90.00%, 88.00% | 70 s | 4,321 | ≥ 89.0%, ≤ 75 s | yes and yes |" in page
    assert "| transfer | 97.90% ± 0.14% | 97.80%, 98.00% | 305 s |  | ≥ 98.0%, ≤ 420 s | no and yes |" in page
    assert "| transfer on one GPU | not measured |" in page


def test_the_seeds_page_of_a_gpu_has_its_own_target_and_how_much_of_it_was_used():
    run = {"accuracy": 0.984, "seconds": 95.0, "images_per_second": 9000.0, "utilisation": 0.87}
    row = seeds.row("transfer on one GPU", [run], torch.device("cuda"))
    assert row[3:] == ["95 s", "9,000, GPU 87% used", "≥ 98.3%, ≤ 90 s", "yes and no"]
    assert seeds.row("transfer", [run], torch.device("cuda"))[-1] == "yes and other hardware"


def test_a_gpu_gets_more_pixels_and_epochs_of_the_same_recipe(params):
    changed = approaches.model(seeds.for_gpu(params), "transfer").params
    command = f"-S transfer.resolution={changed.resolution} -S transfer.training.epochs={changed.training.epochs}"
    assert command in (ROOT / "docs/training.md").read_text()
    usual = approaches.model(params, "transfer").params
    assert (changed.resolution, changed.training.epochs) > (usual.resolution, usual.training.epochs)
    assert changed.model_copy(update={"resolution": 128, "training": usual.training}) == usual


def test_the_ablation_goes_from_the_lectures_recipe_to_the_tuned_one(params):
    lecture, tuned = (approaches.model(params, "cnn", recipe).params for recipe in ("lecture", "tuned"))
    recipes = list(ablation.steps(lecture, tuned).values())
    assert recipes[0] == lecture
    assert recipes[-1] == tuned, "DIFFERENCES names every param in which the two differ"
    assert all(one != other for one, other in pairwise(recipes))


def test_the_ablation_calls_a_gain_within_noise_noise():
    entries = ablation.summarise(
        {
            "start": [{"accuracy": 0.80, "seconds": 1}, {"accuracy": 0.81, "seconds": 1}],
            "real": [{"accuracy": 0.90, "seconds": 2}, {"accuracy": 0.91, "seconds": 2}],
            "noise": [{"accuracy": 0.91, "seconds": 2}, {"accuracy": 0.90, "seconds": 2}],
        }
    )
    page = ablation.page({"steps": entries, "seeds": 2, "made_by": "by a test"})
    assert "| real | 90.50% ± 0.71% | +10.00 points | 0.005, real | 2 s |" in page
    assert "| noise | 90.50% ± 0.71% | +0.00 points | 1, noise | 2 s |" in page


def worker(seconds: list[float], accuracies: list[float]) -> training.Worker:
    """A worker that has trained already."""
    done = training.Worker.__new__(training.Worker)
    done.epochs = [
        {"seconds": second, "test_accuracy": accuracy, "peak_mib": 100.0}
        for second, accuracy in zip(seconds, accuracies, strict=True)
    ]
    return done


def test_the_ratio_to_keras_is_the_median_of_pairs_without_the_first(dataset, in_tmp, monkeypatch):
    save(dataset)
    monkeypatch.setattr(training, "gflops_of_a_product", lambda _: 100.0)
    ours = worker([9.0, 1.0, 1.0, 2.0], [0.84, 0.86, 0.88, 0.89])
    keras = worker([1.0, 3.0, 2.0, 3.0], [0.5, 0.6, 0.7, 0.86])
    page = training.page(ours, keras, "Keras 0")
    assert "Median ratio of 3 pairs" in page
    assert "**2.00 times as fast as Keras** (from 1.50 to 3.00; asked: 2.3, not reached)" in page
    assert "| to 85% test accuracy | 10 s | 9 s |" in page
    assert "| to 90% test accuracy | not reached | not reached |" in page


def test_a_training_step_of_the_lectures_network_is_counted():
    """From the layers' sizes: backward costs twice forward, without the gradient of the images."""
    forward = [2 * 26 * 26 * 32 * 49, 2 * 9 * 9 * 64 * 32 * 25, 2 * 2 * 2 * 64 * 64 * 9, 2 * 256 * 64, 2 * 64]
    assert training.flops_of_an_image() == pytest.approx(3 * sum(forward) - forward[0])
