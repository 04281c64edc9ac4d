"""Approach 1, `baseline`: least squares directly on grayscale pixels."""

from __future__ import annotations

import time
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.learning.approach import Approach, Job, NoParams, Trained
from pipeline.learning.classifier import Classifier, grayscale


class LeastSquares(Classifier):
    """Approach 1: a weighted sum of grayscale pixels (0 to 1) and a bias; its sign is the class."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.zeros(32 * 32 + 1, dtype=torch.float64)  # the last one is the bias
        self.weights = nn.Parameter(weights, requires_grad=False)  # solved directly, without gradients

    @staticmethod
    def design_matrix(images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> float64 `[N, 1025]`: grayscale pixels and a column of ones."""
        return F.pad(grayscale(images.double() / 255).flatten(1), (0, 1), value=1.0)

    def fit(self, images: Tensor, labels: Tensor) -> Self:
        """Solve min ‖Xw − t‖² exactly, with targets t = −1 for label 0 and +1 for label 1.

        Args:
            images: uint8 `[N, 32, 32, 3]`.
            labels: 0 or 1, `[N]`, of any dtype.
        """
        targets = labels.double() * 2 - 1
        solution = torch.linalg.lstsq(self.design_matrix(images), targets[:, None], driver="gelsd").solution
        self.weights.copy_(solution[:, 0])
        return self

    def pixel_weights(self) -> Tensor:
        """The weight of each pixel, float64 `[32, 32]`, without the bias."""
        return self.weights[:-1].reshape(32, 32)

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`: twice the fitted value v.

        Least squares estimates the probability as (1 + v) / 2, which can lie outside 0 to 1. sigmoid(2v) has the same
        value and slope at v = 0, and always lies between 0 and 1.
        """
        return 2 * (self.design_matrix(images) @ self.weights).float()


def train(_: NoParams, job: Job) -> Trained:
    """Solve for one weight per pixel and the bias."""
    start = time.perf_counter()
    model = LeastSquares().fit(job.images("train"), job.labels("train"))
    return Trained(model, seconds=time.perf_counter() - start)


def title(_: NoParams) -> str:
    """Its name in tables and on pages."""
    return "Least squares on grayscale pixels"


# The CPU and float64 make the solution exact and repeatable.
APPROACH = Approach(LeastSquares, train, title, device="cpu", precision="float64")
