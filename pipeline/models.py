"""The three representations, each a module from uint8 RGB images `[N, 32, 32, 3]` to float32 logits `[N]`.

A positive logit means label 1. Grayscale, resizing and normalisation live inside, so training, evaluation, export and
serving cannot disagree about them. Letters in shapes: N images, C channels, H and W pixels, F features.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from pipeline.backbones import Backbone, build_backbone, without_autocast

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grayscale pixel (ITU-R BT.601)."""


class Architecture(BaseModel):
    """What must be known, beside the weights, to rebuild a module; it travels in the model card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["least_squares", "lecture_cnn", "transfer"]
    color: Literal["grayscale", "rgb"] = "rgb"
    backbone: str = ""
    resolution: int = 32
    mirror: bool = False


class Classifier(nn.Module):
    """What every approach is: uint8 `[N, 32, 32, 3]` -> float32 logits `[N]`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    def logits(self, images: Tensor) -> Tensor:
        """What the network says of each image: uint8 `[N, 32, 32, 3]` -> float32 `[N]`."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`; where `mirror` is set and nothing is trained, the mean with the mirror images' ones."""
        if self.training or not self.architecture.mirror:
            return self.logits(images)
        return self.logits(torch.cat([images, images.flip(2)])).view(2, -1).mean(0)

    def first_filters(self) -> Tensor | None:
        """The weights `[filters, C, H, W]` of the first convolution, where there is one."""
        return None

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What convolutional layers answer to uint8 `[N, 32, 32, 3]`, first to last: name -> float32 `[N, C, H, W]`."""
        return {}


class LeastSquares(Classifier):
    """Approach 1: a weighted sum of grayscale pixels (0 to 1) and a bias; its sign is the class."""

    def __init__(self) -> None:
        super().__init__(Architecture(kind="least_squares", color="grayscale"))
        weights = torch.zeros(32 * 32 + 1, dtype=torch.float64)  # the last one is the bias
        self.weights = nn.Parameter(weights, requires_grad=False)  # solved for, not descended to

    @staticmethod
    def design_matrix(images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> float64 `[N, 1025]`: grayscale pixels and a column of ones."""
        return F.pad(grayscale(images.double() / 255).flatten(1), (0, 1), value=1.0)

    def fit(self, images: Tensor, labels: Tensor) -> Self:
        """Solve min ‖Xw − t‖² exactly, targets t = −1 for label 0 and +1 for label 1.

        Args:
            images: uint8 `[N, 32, 32, 3]`.
            labels: 0 or 1, `[N]`, of any type.
        """
        targets = labels.double() * 2 - 1
        solution = torch.linalg.lstsq(self.design_matrix(images), targets[:, None], driver="gelsd").solution
        self.weights.copy_(solution[:, 0])
        return self

    def logits(self, images: Tensor) -> Tensor:
        """Logits: twice the fitted value v. The least-squares estimate of the probability is (1 + v) / 2, which leaves
        0 to 1; sigmoid(2v) has its value and slope at v = 0, and stays within.
        """
        return 2 * (self.design_matrix(images) @ self.weights).float()


class LectureCnn(Classifier):
    """Approach 2, the lecture's network: three convolutions, two poolings, dropout, two dense layers.

    Shapes: 32x32xC -> conv 7x7 -> 26x26x32 -> pool -> 13x13 -> conv 5x5 -> 9x9x64 -> pool -> 4x4 -> conv 3x3 -> 2x2x64
    -> 256 -> dense 64 -> one logit.
    """

    def __init__(self, color: Literal["grayscale", "rgb"], *, mirror: bool = False) -> None:
        super().__init__(Architecture(kind="lecture_cnn", color=color, mirror=mirror))
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
        """Take mean and standard deviation of each channel from uint8 training images `[N, 32, 32, 3]`."""
        pixels = self._channels(images).double()
        self.mean, self.std = pixels.mean((0, 1, 2)).float(), pixels.std((0, 1, 2)).float()
        return self

    def _channels(self, images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> float32 `[N, 32, 32, C]`, 0 to 1."""
        pixels = images.float() / 255
        return grayscale(pixels)[..., None] if self.architecture.color == "grayscale" else pixels

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What each convolutional layer answers after its ReLU: name -> float32 `[N, C, H, W]`, three of them."""
        x = ((self._channels(images) - self.mean) / self.std).permute(0, 3, 1, 2)
        first = F.relu(self.conv1(x))
        second = F.relu(self.conv2(F.max_pool2d(first, 2)))
        third = F.relu(self.conv3(F.max_pool2d(second, 2)))
        return {f"convolution {number}": maps for number, maps in enumerate((first, second, third), start=1)}

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`."""
        *_, last = self.response_maps(images).values()
        hidden = F.relu(self.dense(self.dropout(last.flatten(1))))
        logits: Tensor = self.logit(hidden)[:, 0].float()
        return logits


class TransferNet(Classifier):
    """Approach 3: convolutional layers trained on ImageNet, and a new logit on top of their averaged features."""

    enlarge: Tensor
    enlarge_rows: Tensor

    def __init__(self, backbone: str, resolution: int, *, pretrained: bool, mirror: bool = False) -> None:
        super().__init__(Architecture(kind="transfer", backbone=backbone, resolution=resolution, mirror=mirror))
        self.backbone: Backbone = build_backbone(backbone, pretrained=pretrained)
        self.logit = nn.Linear(self.backbone.features, 1)
        self.register_buffer("enlarge", bicubic(resolution), persistent=False)
        # The same for rows of 32 pixels whose three channels lie side by side.
        self.register_buffer("enlarge_rows", torch.kron(bicubic(resolution), torch.eye(3)).T, persistent=False)
        self.to(memory_format=torch.channels_last)

    def first_filters(self) -> Tensor:
        """The weights `[filters, 3, H, W]` of the backbone's first convolution."""
        return self.backbone.first_filters()

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What four of the backbone's blocks answer, from the first to the last: name -> float32 `[N, C, H, W]`."""
        answers: list[Tensor] = []
        keep = [
            block.register_forward_hook(lambda _, __, answer: answers.append(answer))
            for block in self.backbone.blocks()
        ]
        try:
            self.features(images)
        finally:
            for hook in keep:
                hook.remove()
        maps = [answer.float() for answer in answers if answer.ndim == 4]
        chosen = [round(place) for place in torch.linspace(0, len(maps) - 1, min(4, len(maps))).tolist()]
        return {
            f"block {place + 1} of {len(maps)}": maps[place].flip(2, 3) if self.backbone.turned else maps[place]
            for place in chosen
        }

    def features(self, images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> features `[N, F]`."""
        side = self.architecture.resolution
        if self.backbone.turned:
            images = images.flip(1, 2)
        with without_autocast(images.device):
            pixels = (images.float() / 255 - self.backbone.mean) / self.backbone.std
            enlarged = (self.enlarge @ pixels.reshape(-1, 32, 32 * 3)) @ self.enlarge_rows
        features: Tensor = self.backbone(enlarged.view(-1, side, side, 3).permute(0, 3, 1, 2))
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`."""
        logits: Tensor = self.logit(self.features(images))[:, 0].float()
        return logits


def bicubic(side: int) -> Tensor:
    """The matrix float32 `[side, 32]` that enlarges 32 pixels to `side`, as torch's bicubic interpolation does.

    Enlarging is linear: two matrix products give the same picture in a fifth of the time.
    """
    return F.interpolate(torch.eye(32)[None, None], size=(side, 32), mode="bicubic", align_corners=False)[0, 0]


def grayscale(images: Tensor) -> Tensor:
    """`[..., 3]` -> `[...]`: the luma of each pixel."""
    red, green, blue = images.unbind(-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def build(architecture: Architecture) -> Classifier:
    """The module that `architecture` describes, its weights still to be loaded."""
    match architecture.kind:
        case "least_squares":
            return LeastSquares()
        case "lecture_cnn":
            return LectureCnn(architecture.color, mirror=architecture.mirror)
        case "transfer":
            return TransferNet(
                architecture.backbone, architecture.resolution, pretrained=False, mirror=architecture.mirror
            )
