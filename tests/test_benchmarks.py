from __future__ import annotations

import torch

from benchmarks import seeds
from benchmarks.page import table


def test_a_table_has_a_rule_and_right_aligned_figures():
    assert table(["model", "accuracy"], [["cnn", "90 %"]]) == "| model | accuracy |\n| --- | ---: |\n| cnn | 90 % |\n"


def test_the_seeds_page_says_what_was_reached_and_what_was_not():
    runs = {
        "cnn-lecture": [{"accuracy": 0.90, "seconds": 70}, {"accuracy": 0.88, "seconds": 71}],
        "transfer": [{"accuracy": 0.978, "seconds": 300}, {"accuracy": 0.980, "seconds": 310}],
    }
    page = seeds.page(runs, torch.device("cpu"), "make seeds")
    assert "| cnn-lecture | 89.00% ± 1.41% | 90.00%, 88.00% | 70 s | ≥ 89.0%, ≤ 75 s | yes and yes |" in page
    assert "| transfer | 97.90% ± 0.14% | 97.80%, 98.00% | 305 s | ≥ 98.0%, ≤ 420 s | no and yes |" in page
    assert "GPU: not measured" in page
