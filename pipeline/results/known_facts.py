"""Published facts about these images: the lecture's figures, the accuracy of people, known flaws."""

from __future__ import annotations

LECTURE = {"baseline": (0.72, 0.63), "cnn-lecture": (0.94, 0.90)}
"""Train and test accuracy that the lecture reports for its two approaches."""

LEAST_SQUARES = (0.7194, 0.6200)
"""Exact train and test accuracy of least squares on all 10,000 training images, without a validation split."""

HUMAN_INDIVIDUAL, HUMAN_MAJORITY = 0.9768, 0.9960
"""Accuracy of one person, and of the majority of people, on these 2,000 test images of cars and trucks.

Computed from CIFAR-10H (Peterson et al. 2019, "Human uncertainty makes classification more robust").
"""


def apply_to(classes: list[str]) -> bool:
    """Whether the figures and lists in this file are about these two classes of CIFAR-10, in either order."""
    return set(classes) == {"automobile", "truck"}


def lecture_of(name: str, classes: list[str]) -> tuple[float, float] | None:
    """Train and test accuracy that the lecture reports for a model and these classes; None if it reports none."""
    return LECTURE.get(name) if apply_to(classes) else None


DISPUTED_TEST_ROWS = (
    1684, 1969, 3168, 4055, 5166, 5882, 6522, 7311, 9227, 9352, 9643,
)  # fmt: skip
"""Rows of test_batch whose label human raters dispute (Northcutt et al. 2021, "Pervasive label errors")."""

NEAR_DUPLICATE_TEST_ROWS = (
    104, 131, 136, 390, 546, 594, 654, 656, 951, 1313, 1335, 1340, 1987, 2019, 2148, 2369, 2911, 2929, 3170, 3293, 3389,
    3488, 3520, 3547, 3553, 3565, 3663, 3745, 3768, 3794, 4091, 4236, 4297, 4424, 4430, 4460, 4992, 5132, 5201, 5243,
    5394, 5604, 5971, 6080, 6119, 6372, 6435, 6701, 7052, 7053, 7075, 7225, 7570, 7577, 7604, 7631, 7715, 7799, 8356,
    8445, 9126, 9245, 9340, 9496, 9788,
)  # fmt: skip
"""Rows of test_batch with a near-duplicate in training (Barz & Denzler 2020, "Do we train on test data?")."""
