"""Approach 2, `cnn`: the lecture's convolutional network, trained by each recipe of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.params import Section
from pipeline.learning.approach import Approach, Job, Trained
from pipeline.learning.classifier import Classifier, Layer, grayscale
from pipeline.learning.loop import fit
from pipeline.learning.params import TrainingParams


class CnnParams(Section):
    """One recipe for the lecture's network."""

    color: Literal["grayscale", "rgb"]
    mirror: bool
    training: TrainingParams


class LectureCnn(Classifier):
    """Approach 2, the lecture's network: three convolutions, two poolings, dropout, two dense layers.

    Shapes: 32x32xC -> conv 7x7 -> 26x26x32 -> pool -> 13x13 -> conv 5x5 -> 9x9x64 -> pool -> 4x4 -> conv 3x3 -> 2x2x64
    -> 256 -> dense 64 -> one logit.
    """

    def __init__(self, color: Literal["grayscale", "rgb"], *, mirror: bool = False) -> None:
        super().__init__(mirror=mirror, color=color)
        self.color = color
        channels = 1 if color == "grayscale" else 3
        self.conv1 = nn.Conv2d(channels, 32, 7)
        self.conv2 = nn.Conv2d(32, 64, 5)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.dropout = nn.Dropout(0.5)
        self.dense = nn.Linear(256, 64)
        self.logit = nn.Linear(64, 1)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        for layer in (self.conv1, self.conv2, self.conv3, self.dense, self.logit):
            nn.init.xavier_uniform_(layer.weight)  # Keras's "glorot_uniform"
            nn.init.zeros_(layer.get_parameter("bias"))
        self.to(memory_format=torch.channels_last)

    def first_filters(self) -> Tensor:
        """The weights `[32, C, 7, 7]` of the first convolution."""
        return self.conv1.weight

    def standardise_by(self, images: Tensor) -> Self:
        """Set the mean and standard deviation of each channel from uint8 training images `[N, 32, 32, 3]`."""
        pixels = self._channels(images).double()
        self.mean, self.std = pixels.mean((0, 1, 2)).float(), pixels.std((0, 1, 2)).float()
        return self

    def _channels(self, images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> float32 `[N, 32, 32, C]`, 0 to 1."""
        pixels = images.float() / 255
        return grayscale(pixels)[..., None] if self.color == "grayscale" else pixels

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The response maps of the three convolutional layers, after their ReLU: name -> float32 `[N, C, H, W]`."""
        x = ((self._channels(images) - self.mean) / self.std).permute(0, 3, 1, 2)
        first = F.relu(self.conv1(x))
        second = F.relu(self.conv2(F.max_pool2d(first, 2)))
        third = F.relu(self.conv3(F.max_pool2d(second, 2)))
        return {f"convolution {number}": maps for number, maps in enumerate((first, second, third), start=1)}

    @torch.inference_mode()
    def layers(self) -> list[Layer]:
        """The network layer by layer. The shapes come from a pass over a black image."""
        first, second, third = self.response_maps(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).values()

        def convolved(layer: nn.Conv2d, maps: Tensor) -> Layer:
            return Layer(f"conv {layer.kernel_size[0]}×{layer.kernel_size[0]}, ReLU", _shape(maps), _count(layer))

        return [
            Layer("image", (32, 32, self.conv1.in_channels)),
            convolved(self.conv1, first),
            Layer("max pool 2×2", _shape(F.max_pool2d(first, 2))),
            convolved(self.conv2, second),
            Layer("max pool 2×2", _shape(F.max_pool2d(second, 2))),
            convolved(self.conv3, third),
            Layer("flatten, dropout", (third.numel(),)),
            Layer("dense, ReLU", (self.dense.out_features,), _count(self.dense)),
            Layer("logit, sigmoid", (1,), _count(self.logit)),
        ]

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`."""
        *_, last = self.response_maps(images).values()
        hidden = F.relu(self.dense(self.dropout(last.flatten(1))))
        logits: Tensor = self.logit(hidden)[:, 0].float()
        return logits


def _shape(maps: Tensor) -> tuple[int, ...]:
    _, channels, height, width = maps.shape
    return height, width, channels


def _count(layer: nn.Module) -> int:
    return sum(weight.numel() for weight in layer.parameters())


def train(params: CnnParams, job: Job) -> Trained:
    """Start from random weights as Keras does, and learn filters and classifier together."""
    torch.manual_seed(job.seed)
    model = LectureCnn(params.color, mirror=params.mirror).standardise_by(job.images("train"))
    first_filters = model.first_filters().detach().clone()
    history = fit(model, params.training, job)
    return Trained(model, sum(epoch.seconds for epoch in history), history, first_filters)


def title(params: CnnParams) -> str:
    """Its name in tables and on pages."""
    augmented = params.training.flip or params.training.shift or params.training.cutout
    color = "in colour" if params.color == "rgb" else "in gray"
    return f"The lecture's CNN, {color}{', on flipped and shifted images' if augmented else ''}"


APPROACH = Approach(LectureCnn, train, title, CnnParams, recipes=True)
