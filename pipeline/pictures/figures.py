"""The lecture's pictures, drawn from this run's weights and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from pipeline.base.files import atomic
from pipeline.data.dataset import Dataset
from pipeline.learning.card import FIRST_FILTERS
from pipeline.learning.classifier import Classifier
from pipeline.pictures import charts
from pipeline.pictures.palette import RIGHT, WRONG
from pipeline.results.metrics import correct, predicted
from pipeline.results.result import Result


@torch.inference_mode()
def draw(result: Result, network: Classifier, dataset: Dataset, folder: Path) -> None:
    """Draw every figure that this model can have into `folder`. NAME-epoch-0 shows the same as NAME before training."""
    name, test = result.name, result.test
    figures = {
        "confusion": charts.confusion(test, dataset.class_names, name),
        "reliability": charts.reliability(test, dataset.class_names, name),
        "roc": charts.roc({name: test}, dataset.class_names),
        "results": results(test, dataset, name),
        "mistakes": mistakes(test, dataset, name),
    }
    if len(result.history):
        figures["curves"] = charts.curves(result.history, name, smoothed=result.smoothed)
    if (weights := network.pixel_weights()) is not None:
        figures["weights"] = pixel_weights(weights, dataset.class_names, name)
    learning = "fine-tuning" if result.card.pretrained_sha256 else "training"
    if (before := first_filters(result.folder)) is not None:
        figures["filters-epoch-0"] = filters(before, f"{name}: first-layer filters before {learning}")
    if (after := network.first_filters()) is not None:
        figures["filters"] = filters(after, f"{name}: first-layer filters after {learning}")
    for label, class_name in enumerate(dataset.class_names):
        image = dataset.images[test["id"][test["label"] == label].iloc[0]]
        if layers := network.response_maps(torch.from_numpy(np.array(image))[None]):
            title = f"{name}: response maps of one {class_name}, each on its own scale from dark to light"
            figures[f"response_maps_{class_name}"] = response_maps(layers, image, title)
    for picture, figure in figures.items():
        save(figure, folder / f"{picture}.png")


def first_filters(folder: Path) -> Tensor | None:
    """The filters of the first convolution before the training, from a result folder; None if it has none."""
    path = folder / FIRST_FILTERS
    return load_file(path)["first_filters"] if path.exists() else None


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def mosaic(
    tiles: NDArray[Any], columns: int, gap: int = 2, above: int = 0
) -> tuple[NDArray[Any], list[tuple[float, float]]]:
    """Put tiles `[n, h, w]` or `[n, h, w, 3]` on one canvas, which is drawn ten times as fast as separate pictures.

    The tiles are first enlarged by a whole factor, to 32 pixels or slightly more.

    Args:
        gap: free pixels between the enlarged tiles.
        above: additional free pixels above each row, for titles.

    Returns:
        The canvas, with NaN between the tiles (white for colour tiles), and the middle `(x, y)` of each tile's upper
        edge.
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


def sheet(parts: list[tuple[str, NDArray[Any]]], width: float) -> tuple[Figure, list[Axes]]:
    """Draw canvases one below the other, each over the whole width, under its title and with its own axes.

    Args:
        parts: titles and canvases; `mosaic` makes a canvas.
        width: in inches.
    """
    line, edge = 0.2, 0.06  # inches: the height of a line of text; the white margin
    heads = [line * len(title.splitlines()) + (0.15 if number else 0.05) for number, (title, _) in enumerate(parts)]
    bodies = [(width - 2 * edge) * canvas.shape[0] / canvas.shape[1] for _, canvas in parts]
    total = sum(heads) + sum(bodies) + edge * (1 + len(parts))
    figure, top, drawn = Figure(figsize=(width, total)), total, []
    for (title, canvas), head, body in zip(parts, heads, bodies, strict=True):
        top -= head + body + edge
        figure.text(0.5, (top + body + 0.05) / total, title, ha="center", va="bottom", fontsize=11)
        axes = figure.add_axes((edge / width, top / total, 1 - 2 * edge / width, body / total))
        axes.set_axis_off()
        axes.imshow(canvas, cmap="viridis", interpolation="nearest")
        drawn.append(axes)
    return figure, drawn


def filters(weights: Tensor, title: str, columns: int = 8) -> Figure:
    """A grid of filters `[filters, channels, H, W]`, each on its own scale: 1 channel from blue to red, 3 in colour."""
    weights = weights.detach().cpu()
    count, channels, height, width = weights.shape
    reach = weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    kernels = (weights / reach).permute(0, 2, 3, 1).numpy()
    tiles = kernels / 2 + 0.5 if channels == 3 else kernels[..., 0]
    canvas, titles = mosaic(tiles, columns, above=5)
    key = "in colour" if channels == 3 else "red positive, blue negative"
    text = f"{title}\n{count} filters, {height}×{width}×{channels}, each on its own scale, {key}"
    figure, (axes,) = sheet([(text, canvas)], columns * 0.95)
    axes.images[0].set(cmap="RdBu_r", clim=(-1, 1))
    for number, (x, y) in enumerate(titles, start=1):
        axes.text(x, y, str(number), ha="center", va="bottom", fontsize=7)
    return figure


def pixel_weights(weights: Tensor, class_names: list[str], name: str) -> Figure:
    """The weight of each pixel, float `[H, W]`, as an image: blue speaks for the first class, red for the second."""
    reach = float(weights.abs().max())
    figure = Figure(figsize=(6.2, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{name}: the learned weight of each pixel")
    image = axes.imshow(weights.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes.set(xlabel="pixel column", ylabel="pixel row")
    figure.colorbar(image, label=f"weight   ← {class_names[0]}      {class_names[1]} →")
    return figure


def response_maps(layers: dict[str, Tensor], image: NDArray[np.uint8], title: str, shown: int = 16) -> Figure:
    """An image uint8 `[32, 32, 3]` and `shown` of its response maps from each layer: name -> float32 `[1, C, H, W]`."""
    columns = shown // 2
    beside, _ = mosaic(image[None] / 255, columns)
    parts = [(title, beside)]
    for layer, maps in layers.items():
        chosen = maps[0, most_varied(maps, shown)]
        canvas, _ = mosaic(to_own_scale(chosen).numpy(), columns)
        parts.append((f"{layer}, {shown_of(len(chosen), maps, shown)}", canvas))
    figure, _ = sheet(parts, 9.5)
    return figure


def shown_of(chosen: int, maps: Tensor, wanted: int) -> str:
    """The size of the maps `[N, C, H, W]` and how many of them are shown, in words."""
    _, count, height, width = maps.shape
    if chosen < min(wanted, count):
        return f"{height}×{width}: only {chosen} of {count:,} maps vary"
    return f"{height}×{width}: the {chosen} of {count:,} maps that vary most"


def most_varied(maps: Tensor, count: int) -> Tensor:
    """The channels of `[N, C, H, W]` that vary most over images and positions: int64, ascending, at most `count`.

    Deep layers have many filters, and most of them do not answer to a given image. Maps that hardly vary are left out,
    but one channel is always returned.
    """
    spread = maps.float().std((2, 3), correction=0).sum(0)
    varying = max(1, int((spread > 1e-3 * spread.max()).sum()))
    return spread.topk(min(count, varying)).indices.sort().values


def to_own_scale(maps: Tensor) -> Tensor:
    """Scale each map of `[n, H, W]` to 0 to 1; a constant map becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def results(test: pd.DataFrame, dataset: Dataset, name: str, count: int = 20, seed: int = 0) -> Figure:
    """The lecture's "Results" slides: test images with `truth / prediction`, drawn at random."""
    drawn = test.sample(min(count, len(test)), random_state=seed)
    return answers(drawn, dataset, f"{name}: test images drawn at random\ntruth / prediction, and its probability")


def most_confident_mistakes(test: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The wrong rows of a predictions table, the most confident first."""
    wrong = test[~correct(test)]
    order = (wrong["probability"] - 0.5).abs().sort_values(ascending=False, kind="stable").index
    return wrong.loc[order[:count]]


def mistakes(test: pd.DataFrame, dataset: Dataset, name: str) -> Figure:
    """The test images that the model gets most confidently wrong."""
    shown, count = most_confident_mistakes(test), int((~correct(test)).sum())
    of = f"the most confident of {count} mistakes on {len(test):,} test images"
    title = f"{name}: {of}\ntruth / prediction, and its probability"
    return answers(shown, dataset, title)


def sureness(share: float) -> str:
    """A probability in whole percent, or with two decimals near 100 %, so that it is never rounded to certainty."""
    if share < 0.995:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2f} %" if share < 0.99995 else "> 99.99 %"


def verdicts(rows: pd.DataFrame, class_names: list[str]) -> list[tuple[str, str, str]]:
    """Truth, prediction and the probability of the prediction, as text, for each row of a predictions table."""
    verdicts = []
    for truth, label, probability in zip(rows["label"], predicted(rows), rows["probability"], strict=True):
        sure = probability if label else 1 - probability
        verdicts.append((class_names[truth], class_names[label], sureness(sure)))
    return verdicts


def answers(rows: pd.DataFrame, dataset: Dataset, title: str) -> Figure:
    """Images with truth, prediction and its probability. A sign and a colour mark the wrong answers."""
    columns = 5
    if not len(rows):
        figure = Figure(figsize=(columns * 1.75, 1), layout="constrained")
        figure.text(0.5, 0.5, f"{title}: none", ha="center", va="center")
        return figure
    canvas, titles = mosaic(dataset.images[rows["id"]] / 255, columns, gap=3, above=4)
    figure, (axes,) = sheet([(title, canvas)], columns * 1.75)
    for (x, y), (truth, label, sure) in zip(titles, verdicts(rows, dataset.class_names), strict=True):
        right = truth == label
        text = f"{'' if right else '✗ '}{truth} / {label} {sure}"
        color = RIGHT if right else WRONG
        axes.text(x, y, text, ha="center", va="bottom", fontsize=9, color=color)
    return figure
