"""The base class of all classifiers: a module from uint8 RGB images `[N, 32, 32, 3]` to float32 logits `[N]`.

A positive logit means label 1. Grayscale, resizing and normalisation are inside, so training, evaluation, export and
serving cannot differ in them. Letters in shapes: N images, C channels, H and W pixels, F features.
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
    """One layer of a network, as people read it. Its output `shape` is H × W × C, or the number of neurons."""

    name: str
    shape: tuple[int, ...]
    parameters: int = 0


class Classifier(nn.Module):
    """The network of an approach: uint8 `[N, 32, 32, 3]` -> float32 logits `[N]`.

    `pixel_weights`, `first_filters`, `response_maps` and `layers` describe the network. The pictures and the report
    call them on every network and draw the results that are not empty.

    Attributes:
        architecture: the arguments that build the network again; the model card holds them.
        mirror: whether the logit of an image is averaged with the logit of its mirror image.
    """

    def __init__(self, *, mirror: bool = False, **architecture: Any) -> None:
        super().__init__()
        self.mirror = mirror
        self.architecture: dict[str, Any] = architecture | ({"mirror": True} if mirror else {})

    def logits(self, images: Tensor) -> Tensor:
        """The network's logit of each image: uint8 `[N, 32, 32, 3]` -> float32 `[N]`."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 `[N]`. With `mirror`, except in training, they are averaged with the mirror image's logit."""
        if self.training or not self.mirror:
            return self.logits(images)
        return self.logits(torch.cat([images, images.flip(2)])).view(2, -1).mean(0)

    def pixel_weights(self) -> Tensor | None:
        """One weight for each pixel, float `[32, 32]`, positive for label 1; None without such weights."""
        return None

    def first_filters(self) -> Tensor | None:
        """The weights `[filters, C, H, W]` of the first convolution; None without a convolution."""
        return None

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Response maps of convolutional layers to uint8 `[N, 32, 32, 3]`, in order: name -> float32 `[N, C, H, W]`."""
        return {}

    def layers(self) -> list[Layer]:
        """The network layer by layer; empty if it is too large to read."""
        return []


def grayscale(images: Tensor) -> Tensor:
    """`[..., 3]` -> `[...]`: the luma of each pixel."""
    red, green, blue = images.unbind(-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def digest_of_weights(module: nn.Module) -> str:
    """SHA-256 over a module's weights and buffers, as safetensors writes them."""
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    return hashlib.sha256(save(contiguous)).hexdigest()
