"""Approach 3, `transfer`: convolutional layers trained on ImageNet with a new head, first frozen, then fine-tuned."""

from __future__ import annotations

import time
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from pipeline.approaches.transfer.backbones import Backbone, build_backbone, check_backbone, without_autocast
from pipeline.base.params import Section
from pipeline.data.dataset import Split
from pipeline.learning import processes
from pipeline.learning.approach import Approach, Job, Trained
from pipeline.learning.classifier import Classifier, digest_of_weights
from pipeline.learning.loop import fit
from pipeline.learning.params import TrainingParams
from pipeline.learning.predict import in_batches, predict_logits


class TransferParams(Section):
    """A pretrained backbone with a new head."""

    backbone: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    resolution: Annotated[int, Field(ge=32, le=512)]
    frozen_blocks: Annotated[int, Field(ge=0)]
    head_l2: Annotated[float, Field(gt=0)]
    mirror: bool
    training: TrainingParams


class TransferNet(Classifier):
    """Approach 3: convolutional layers trained on ImageNet, and a new logit on top of their averaged features."""

    enlarge: Tensor
    enlarge_rows: Tensor

    def __init__(self, backbone: str, resolution: int, *, pretrained: bool = False, mirror: bool = False) -> None:
        super().__init__(mirror=mirror, backbone=backbone, resolution=resolution)
        self.resolution = resolution
        self.backbone: Backbone = build_backbone(backbone, pretrained=pretrained)
        self.logit = nn.Linear(self.backbone.features, 1)
        self.register_buffer("enlarge", bicubic(resolution), persistent=False)
        # The same enlargement for rows of 32 pixels whose three channels lie side by side.
        self.register_buffer("enlarge_rows", torch.kron(bicubic(resolution), torch.eye(3)).T, persistent=False)
        self.to(memory_format=torch.channels_last)

    def first_filters(self) -> Tensor:
        """The weights `[filters, 3, H, W]` of the backbone's first convolution."""
        return self.backbone.first_filters()

    def response_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The response maps of four of the backbone's blocks, first to last: name -> float32 `[N, C, H, W]`."""
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
        side = self.resolution
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
    """The matrix float32 `[side, 32]` that enlarges 32 pixels to `side` by torch's bicubic interpolation.

    The interpolation is linear, so two matrix products give the same picture in a fifth of the time.
    """
    return F.interpolate(torch.eye(32)[None, None], size=(side, 32), mode="bicubic", align_corners=False)[0, 0]


HEAD_RATE_FACTOR = 2.0
"""The factor on the head's learning rate: a new head must learn faster than the pretrained layers below it."""


def fit_head(model: TransferNet, params: TransferParams, job: Job) -> None:
    """Step 1: fit the head as a logistic regression on the features of frozen layers, which are computed only once."""
    features = in_batches(model.features, job.images("train").numpy(), job.device)
    center, scale = features.mean(0), features.std(0) + 1e-6
    # scikit-learn's C weighs the sum of the losses against ½‖w‖². head_l2 weighs ½‖w‖² against the mean of the losses.
    regression = LogisticRegression(C=1 / (params.head_l2 * len(features)), max_iter=1000, solver="newton-cholesky")
    regression.fit((features - center) / scale, job.labels("train").numpy())
    weight = regression.coef_[0] / scale
    bias = regression.intercept_[0] - weight @ center
    with torch.no_grad():
        model.logit.weight.copy_(torch.from_numpy(weight))
        model.logit.bias.fill_(float(bias))


def frozen_answers(model: TransferNet, job: Job) -> dict[Split, NDArray[Any]]:
    """The logits of the head on frozen layers for the validation and the test images, float32 `[n]` for each split.

    The whole model computes them, exactly as it does after fine-tuning.
    """
    splits: tuple[Split, ...] = ("validation", "test")
    return {split: predict_logits(model, job.images(split).numpy(), job.device) for split in splits}


def train(params: TransferParams, job: Job) -> Trained:
    """Fit a new head on frozen layers, then fine-tune the head and the layers that `parameter_groups` chooses."""
    start = time.perf_counter()
    model = TransferNet(params.backbone, params.resolution, pretrained=True, mirror=params.mirror).to(job.device).eval()
    pretrained = digest_of_weights(model.backbone)
    frozen: dict[Split, NDArray[Any]] = {}
    if processes.rank() == 0:  # the other processes get this head when `fit` starts
        fit_head(model, params, job)
        frozen = frozen_answers(model, job)
        print("fitted a new head on frozen layers", flush=True)
    seconds = time.perf_counter() - start

    first_filters = model.first_filters().detach().clone()
    history = fit(model, params.training, job, parameter_groups(model, params))
    return Trained(model, seconds + sum(epoch.seconds for epoch in history), history, first_filters, frozen, pretrained)


def parameter_groups(model: TransferNet, params: TransferParams) -> list[dict[str, Any]]:
    """The weights to train: the head, and the blocks above the frozen ones without their depthwise convolutions.

    Depthwise convolutions hold 6 % of EfficientNet-Lite0's weights, and a CPU has no fast kernel for their gradient
    (docs/training.md).
    """
    for layer in [*model.backbone.blocks()[: params.frozen_blocks], *model.backbone.depthwise_convolutions()]:
        layer.requires_grad_(False)
    body = [weight for weight in model.backbone.parameters() if weight.requires_grad]
    return [
        {"params": list(model.logit.parameters()), "rate_factor": HEAD_RATE_FACTOR},
        {"params": body, "rate_factor": 1.0},
    ]


def title(params: TransferParams) -> str:
    """Its name in tables and on pages."""
    return f"Transfer learning from ImageNet ({params.backbone}, {params.resolution} px)"


def check(params: TransferParams) -> None:
    """Refuse a backbone that does not exist, or that does not take images of this size."""
    check_backbone(params.backbone, params.resolution, params.frozen_blocks)


APPROACH = Approach(TransferNet, train, title, TransferParams, check=check)
