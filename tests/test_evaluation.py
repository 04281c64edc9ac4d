from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.results.metrics import correct, mcnemar, split_accuracies, wilson


@pytest.mark.parametrize(
    ("right", "low", "high"), [(1260, 60.9, 65.1), (1800, 88.6, 91.2), (1960, 97.3, 98.5), (2000, 99.8, 100.0)]
)
def test_wilson_intervals_at_2000_images(right, low, high):
    assert [round(100 * bound, 1) for bound in wilson(right, 2000)] == [low, high]


@given(st.integers(1, 5000), st.data())
def test_wilson_is_the_closed_formula(trials, data):
    successes = data.draw(st.integers(0, trials))
    z, share = 1.959963984540054, successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = wilson(successes, trials)
    assert low == pytest.approx(max(middle - reach, 0), abs=1e-12)
    assert high == pytest.approx(min(middle + reach, 1), abs=1e-12)
    assert low <= share <= high


def test_mcnemar_by_hand():
    """The first alone is right once, the second alone 5 times: 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64."""
    first = np.array([True] * 10 + [True] + [False] * 5)
    second = np.array([True] * 10 + [False] + [True] * 5)
    assert mcnemar(first, second) == pytest.approx(14 / 64)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric_and_the_exact_binomial_tail(pairs):
    first, second = np.array(pairs).T
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(first, second) == mcnemar(second, first)


def test_a_probability_of_one_half_counts_as_label_0():
    table = pd.DataFrame({"split": "test", "label": [0, 1], "probability": [0.5, 0.5]})
    assert correct(table).tolist() == [True, False]


def test_an_empty_split_has_no_accuracy():
    table = pd.DataFrame({"split": ["train", "train", "test"], "label": [0, 1, 1], "probability": [0.1, 0.2, 0.9]})
    assert split_accuracies(table) == {"train": 0.5, "validation": None, "test": 1.0}
