"""Random changes to training images, computed on the images' device. Each image of a batch gets its own change."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.learning.params import TrainingParams


def augment(images: Tensor, params: TrainingParams, generator: torch.Generator) -> Tensor:
    """Flip, shift and blank each image by its own random draw: uint8 `[N, 32, 32, 3]` -> the same shape.

    A shift leaves a gap at the border. The gap gets the mirrored pixels next to it.
    """
    count, side, device = len(images), images.shape[1], images.device
    steps = torch.arange(side, device=device)
    rows = columns = steps.expand(count, side)
    if params.flip:
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, side - 1 - columns, columns)
    if params.shift:
        offsets = torch.randint(-params.shift, params.shift + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = _reflect(rows + offsets[0], side), _reflect(columns + offsets[1], side)
    if params.flip or params.shift:
        every = torch.arange(count, device=device)[:, None, None]
        images = images[every, rows[:, :, None], columns[:, None, :]]
    if params.cutout:
        corners = torch.randint(0, side - params.cutout + 1, (2, count, 1), generator=generator, device=device)
        inside = (steps >= corners) & (steps < corners + params.cutout)
        images = images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[..., None], 127)
    return images


def _reflect(positions: Tensor, side: int) -> Tensor:
    """Mirror positions outside 0 .. side - 1 at the border pixel."""
    return (side - 1) - ((side - 1) - positions.abs()).abs()
