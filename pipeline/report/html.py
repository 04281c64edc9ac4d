"""Images, maps and charts as parts of an HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.pictures import figures

INK = "#010203"
"""The placeholder for the text colour while a chart is drawn. The page replaces it with its own text colour."""

PAPER = {
    "figure.facecolor": "none", "axes.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": "none",
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": INK, "svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif",
}  # fmt: skip
"""The style of charts on the page: transparent, in the page's own colour and font, with the same bytes in each run."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page, and its size in pixels."""

    uri: str
    width: int
    height: int


def picture(pixels: NDArray[Any]) -> Picture:
    """An image uint8 or float (0 to 1) `[H, W]` or `[H, W, 3]` as a PNG inside the page."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(uri, pixels.shape[1], pixels.shape[0])


def coloured(values: NDArray[Any], *, signed: bool) -> Picture:
    """A map `[H, W]` in colour: from blue through white (0) to red if `signed`, else from dark to light; NaN white."""
    if signed:
        reach = max(float(np.nanmax(np.abs(values))), 1e-12)
        values = values / reach / 2 + 0.5
    rgba = mpl.colormaps["RdBu_r" if signed else "viridis"](np.ma.masked_invalid(values))
    rgba[np.isnan(values)] = 1.0
    return picture(rgba[..., :3])


def mosaic(maps: Tensor, columns: int = 8) -> Picture:
    """Maps `[n, H, W]` in one picture, each on its own scale."""
    canvas, _ = figures.mosaic(figures.to_own_scale(maps).numpy(), columns)
    return coloured(canvas, signed=False)


def svg(figure: Figure) -> str:
    """A chart as SVG in the page's text colour."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def file_picture(path: Path) -> Picture:
    """The picture of an image file."""
    with Image.open(path) as image:
        return picture(np.asarray(image.convert("RGB")))
