"""What every classifier is: a module from uint8 RGB images `[N, 32, 32, 3]` to float32 logits `[N]`.

A positive logit means label 1. Grayscale, resizing and normalisation live inside, so training, evaluation, export and
serving cannot disagree about them. Letters in shapes: N images, C channels, H and W pixels, F features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grayscale pixel (ITU-R BT.601)."""


@dataclass(frozen=True)
class Layer:
    """One step of a network, for people; `shape` is H × W × C, or the number of neurons."""

    name: str
    shape: tuple[int, ...]
    parameters: int = 0


class Classifier(nn.Module):
    """What every approach makes: uint8 `[N, 32, 32, 3]` -> float32 logits `[N]`.

    Whatever a network can show of itself it shows by these methods; the pictures and the report ask each network for
    all of it and draw what they get.

    Attributes:
        architecture: the arguments that build the network again; they travel in the model card.
        mirror: whether the answer is the mean of those to an image and to its mirror image.
    """

    def __init__(self, *, mirror: bool = False, **architecture: Any) -> None:
        super().__init__()
        self.mirror = mirror
        self.architecture: dict[str, Any] = architecture | ({"mirror": True} if mirror else {})

    def logits(self, images: Tensor) -> Tensor:
        """What the network says about each image: uint8 `[N, 32, 32, 3]` -> float32 `[N]`."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`; with `mirror`, and outside training, their mean with those of the mirror images."""
        if self.training or not self.mirror:
            return self.logits(images)
        return self.logits(torch.cat([images, images.flip(2)])).view(2, -1).mean(0)

    def pixel_weights(self) -> Tensor | None:
        """One weight for each pixel, float `[32, 32]`, positive for label 1; None where a network has no such thing."""
        return None

    def first_filters(self) -> Tensor | None:
        """The weights `[filters, C, H, W]` of the first convolution; None where there is no convolution."""
        return None

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What convolutional layers answer to uint8 `[N, 32, 32, 3]`, first to last: name -> float32 `[N, C, H, W]`."""
        return {}

    def layers(self) -> list[Layer]:
        """The network layer by layer, where it is small enough to be read so."""
        return []


def grayscale(images: Tensor) -> Tensor:
    """`[..., 3]` -> `[...]`: the luma of each pixel."""
    red, green, blue = images.unbind(-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def digest_of_weights(module: nn.Module) -> str:
    """SHA-256 over a module's weights and buffers, as safetensors writes them."""
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    return hashlib.sha256(save(contiguous)).hexdigest()
