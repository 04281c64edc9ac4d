"""The lecture's pictures, drawn from this run's weights and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pipeline.car_truck import Dataset
from pipeline.files import atomic
from pipeline.models import Classifier, LeastSquares, LectureCnn
from pipeline.results import Result

RIGHT, WRONG = "#0072b2", "#d55e00"
"""Blue and vermilion, which colour-blind people tell apart (Okabe & Ito 2008)."""


def draw_all(result: Result, model: Classifier, dataset: Dataset) -> None:
    """Draw every figure that fits the model into its result folder."""
    test = result.predictions[result.predictions["split"] == "test"]
    figures = {"confusion": confusion(test, dataset.class_names), "results": results(test, dataset)}
    if len(result.history):
        figures["curves"] = curves(result.history)
    if isinstance(model, LeastSquares):
        figures["weights"] = least_squares_weights(model, dataset.class_names)
    if (first_filters := model.first_filters()) is not None:
        figures["filters"] = filters(first_filters, "First-layer filters after training")
    if isinstance(model, LectureCnn):
        for label, name in enumerate(dataset.class_names):
            image = dataset.images[test["id"][test["label"] == label].iloc[0]]
            figures[f"response_maps_{name}"] = response_maps(model, image, name)
    for name, figure in figures.items():
        save(figure, result.folder / "figures" / f"{name}.png")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def mosaic(
    tiles: NDArray[Any], columns: int, gap: int = 2, above: int = 0
) -> tuple[NDArray[Any], list[tuple[float, float]]]:
    """Tiles `[n, h, w]` or `[n, h, w, 3]` on one canvas, which draws ten times as fast as a picture each.

    Args:
        gap: pixels between the tiles, which are first enlarged to 32 pixels a side or little more.
        above: further pixels left free over each row, for titles.

    Returns:
        The canvas, NaN (white, for colours) between the tiles, and the middle `(x, y)` of each tile's upper edge.
    """
    scale = -(-32 // tiles.shape[1])
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    size = (rows * (height + gap + above) - gap, columns * (width + gap) - gap)
    canvas = np.full((*size, *tiles.shape[3:]), 1.0 if tiles.ndim == 4 else np.nan)
    row, column = np.divmod(np.arange(count), columns)
    corners = list(zip(column * (width + gap), row * (height + gap + above) + above, strict=True))
    for tile, (x, y) in zip(tiles, corners, strict=True):
        canvas[y : y + height, x : x + width] = tile
    return canvas, [(x + (width - 1) / 2, y - 1.0) for x, y in corners]


def filters(weights: Tensor, title: str, columns: int = 8) -> Figure:
    """A grid of filters `[filters, channels, H, W]`, 1 channel from blue to red, 3 in colour; each to its own scale."""
    weights = weights.detach().cpu()
    count, channels, height, width = weights.shape
    reach = weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    kernels = (weights / reach).permute(0, 2, 3, 1).numpy()
    tiles = kernels / 2 + 0.5 if channels == 3 else kernels[..., 0]
    canvas, titles = mosaic(tiles, columns, above=5)
    figure = Figure(figsize=(columns * 0.95, -(-count // columns) * 1.05 + 0.9), layout="constrained")
    figure.suptitle(f"{title}\n{count} filters, {height}×{width}×{channels}", fontsize=12)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(canvas, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    for number, (x, y) in enumerate(titles, start=1):
        axes.text(x, y, str(number), ha="center", va="bottom", fontsize=7)
    return figure


def least_squares_weights(model: LeastSquares, class_names: list[str]) -> Figure:
    """The weight of each pixel as a 32x32 image: blue speaks for the first class, red for the second."""
    weights = model.weights[:-1].reshape(32, 32).numpy()
    reach = np.abs(weights).max()
    figure = Figure(figsize=(6.2, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title("What least squares learned: a weight for each pixel")
    image = axes.imshow(weights, cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes.set(xlabel="pixel column", ylabel="pixel row")
    figure.colorbar(image, label=f"weight   ← {class_names[0]}      {class_names[1]} →")
    return figure


@torch.inference_mode()
def response_maps(model: LectureCnn, image: NDArray[np.uint8], name: str, shown: int = 16) -> Figure:
    """What the first `shown` filters of each convolutional layer answer to one image uint8 `[32, 32, 3]`."""
    layers = model.cpu().response_maps(torch.from_numpy(np.array(image))[None])
    figure = Figure(figsize=(9.5, 8.2), layout="constrained")
    figure.suptitle(f"Response maps of the convolutional layers to one {name}", fontsize=12)
    subfigures: Any = figure.subfigures(1 + len(layers), 1, height_ratios=[1.1] + [2] * len(layers))
    top, *rest = subfigures
    axes = top.subplots()
    axes.imshow(image)
    axes.set_axis_off()
    for number, (subfigure, maps) in enumerate(zip(rest, layers, strict=True), start=1):
        _, count, height, width = maps.shape
        subfigure.suptitle(f"layer {number}: {min(shown, count)} of {count} maps, {height}×{width}", fontsize=10)
        tiles = maps[0, :shown].float()
        low, high = tiles.amin((1, 2), keepdim=True), tiles.amax((1, 2), keepdim=True)
        axes = subfigure.subplots()
        axes.set_axis_off()
        canvas, _ = mosaic(((tiles - low) / (high - low).clamp(min=1e-12)).numpy(), shown // 2)
        axes.imshow(canvas, cmap="viridis", interpolation="nearest")
    return figure


def confusion(test: pd.DataFrame, class_names: list[str]) -> Figure:
    """Counts and shares of the test images by truth and prediction."""
    predicted = (test["probability"] > 0.5).astype(int)
    counts = np.array([[int(((test["label"] == t) & (predicted == p)).sum()) for p in (0, 1)] for t in (0, 1)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure = Figure(figsize=(4.8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for truth in (0, 1):
        for prediction in (0, 1):
            share = shares[truth, prediction]
            text = f"{counts[truth, prediction]:,}\n{share:.1%}"
            color = "white" if share > 0.5 else "black"
            axes.text(prediction, truth, text, ha="center", va="center", color=color, fontsize=13)
    axes.set(xticks=(0, 1), yticks=(0, 1), xlabel="prediction", ylabel="truth", title=f"{len(test):,} test images")
    axes.set_xticklabels(class_names)
    axes.set_yticklabels(class_names, rotation=90, va="center")
    return figure


def curves(history: pd.DataFrame) -> Figure:
    """Loss and accuracy over the epochs."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, color in (("train", RIGHT), ("validation", WRONG)):
            axes.plot(history["epoch"], history[f"{split}_{quantity}"], color=color, marker=".", label=split)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def results(test: pd.DataFrame, dataset: Dataset, count: int = 20, seed: int = 0) -> Figure:
    """The lecture's "Results" slides: test images with `truth / prediction`, drawn at random."""
    drawn = test.sample(min(count, len(test)), random_state=seed)
    columns = 5
    canvas, titles = mosaic(dataset.images[drawn["id"]] / 255, columns, gap=3, above=4)
    figure = Figure(
        figsize=(columns * 1.75, len(canvas) / canvas.shape[1] * columns * 1.75 + 0.5), layout="constrained"
    )
    figure.suptitle("Test images drawn at random: truth / prediction (probability of it)", fontsize=11)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(canvas, interpolation="nearest")
    for (x, y), label, probability in zip(titles, drawn["label"], drawn["probability"], strict=True):
        predicted = int(probability > 0.5)
        sure = probability if predicted else 1 - probability
        right = predicted == label
        names = f"{dataset.class_names[label]} / {dataset.class_names[predicted]}"
        text, color = f"{'' if right else '✗ '}{names} {sure:.0%}", RIGHT if right else WRONG
        axes.text(x, y, text, ha="center", va="bottom", fontsize=9, color=color)
    return figure
