"""What the model looked at: occlusion sensitivity (Zeiler and Fergus 2014, section 4.2).

A square in the image's mean colour covers one part of the image after another. Where the evidence for the answer falls
while a part is covered, the model looked at that part.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.classifier import Classifier
from serving.images import SIDE

PATCH, STRIDE = 8, 4
"""Side of the square, and the distance from one of its places to the next, in pixels of the 32x32 image."""

CELLS = SIDE // STRIDE
METHOD = (
    f"occlusion: log-odds of the label minus those with a {PATCH}x{PATCH} square in the mean colour, mean over squares"
)
FIRST_COLOUR, SECOND_COLOUR = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion from Okabe and Ito's palette: people with any colour vision can tell them apart."""

OVERLAY_SIDE = 320


@dataclass(frozen=True)
class Explanation:
    """The explanation of one answer.

    Attributes:
        probability: of label 1.
        grid: float64 `[8, 8]`, one cell for each 4x4 pixels: how far the log-odds of the answer's label fall when the
            cell is covered. A cell above 0 speaks for the label, a cell below 0 against it.
    """

    probability: float
    grid: NDArray[np.float64]


def occlusion(classifier: Classifier, pixels: NDArray[np.uint8]) -> Explanation:
    """Explain the answer for `pixels`, uint8 `[32, 32, 3]`: classify the image and 49 copies with one part covered."""
    starts = range(0, SIDE - PATCH + 1, STRIDE)
    places = [(top, left) for top in starts for left in starts]
    batch = np.repeat(pixels[None], len(places) + 1, axis=0)
    mean = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    for image, (top, left) in zip(batch[1:], places, strict=True):
        image[top : top + PATCH, left : left + PATCH] = mean
    probabilities = classifier.probabilities(batch)
    evidence = log_odds(probabilities)
    sign = 1 if probabilities[0] > 0.5 else -1
    fall, covered = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for (top, left), hidden in zip(places, evidence[1:], strict=True):
        cells = np.s_[top // STRIDE : (top + PATCH) // STRIDE, left // STRIDE : (left + PATCH) // STRIDE]
        fall[cells] += sign * (evidence[0] - hidden)
        covered[cells] += 1
    return Explanation(float(probabilities[0]), fall / covered)


def log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """log(p / (1 - p)) for probabilities `[N]`, first clipped to 1e-6 from 0 and 1, where float32 is too coarse."""
    p = np.clip(probabilities.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def overlay(pixels: NDArray[np.uint8], explanation: Explanation) -> bytes:
    """A PNG: the image, uint8 `[32, 32, 3]`, in gray; blue speaks for the first class, vermilion for the second."""
    size = (OVERLAY_SIDE, OVERLAY_SIDE)
    gray = np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.NEAREST), np.float64)
    for_second = explanation.grid if explanation.probability > 0.5 else -explanation.grid
    strength = for_second / max(np.abs(for_second).max(), 1e-9)
    smooth = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colour = np.where(smooth[..., None] > 0, np.array(SECOND_COLOUR), np.array(FIRST_COLOUR))
    share = 0.75 * np.abs(smooth)[..., None]
    return png((gray[..., None] * (1 - share) + colour * share).round().astype(np.uint8))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels, uint8 `[H, W, 3]`, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
