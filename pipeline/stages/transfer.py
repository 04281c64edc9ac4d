"""Stage `transfer`: approach 3, convolutional layers trained on ImageNet with a new head -> models/transfer."""

import time
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression

from pipeline import distributed
from pipeline.approach import run_approach
from pipeline.car_truck import Split
from pipeline.errors import run_as_command
from pipeline.evaluation import in_batches, predict_logits
from pipeline.models import TransferNet
from pipeline.params import TransferParams, load_params
from pipeline.results import Trained, digest_of_weights
from pipeline.training import Job, fit

HEAD_RATE_FACTOR = 2.0
"""The new head learns faster than the pretrained layers below it."""


def fit_head(model: TransferNet, params: TransferParams, job: Job) -> dict[str, float | None]:
    """Step 1: all convolutional layers frozen, so their features are computed once; a logistic regression is the head.

    Returns:
        What this head alone reaches: `frozen_validation_accuracy` and `frozen_test_accuracy`.
    """
    train = in_batches(model.features, job.images("train").numpy(), job.device)
    center, scale = train.mean(0), train.std(0) + 1e-6
    # scikit-learn's C weighs the sum of the losses against ½‖w‖²; head_l2 weighs ½‖w‖² against their mean.
    regression = LogisticRegression(C=1 / (params.head_l2 * len(train)), max_iter=1000, solver="newton-cholesky")
    regression.fit((train - center) / scale, job.labels("train").numpy())
    weight = regression.coef_[0] / scale
    bias = regression.intercept_[0] - weight @ center
    with torch.no_grad():
        model.logit.weight.copy_(torch.from_numpy(weight))
        model.logit.bias.fill_(float(bias))

    def accuracy(split: Split) -> float | None:
        labels = job.labels(split).numpy()
        if not len(labels):
            return None
        # By the model as a whole, as the fine-tuned one is measured: with the mirror image, where that is asked for.
        return float(((predict_logits(model, job.images(split).numpy(), job.device) > 0) == labels).mean())

    return {f"frozen_{split}_accuracy": accuracy(split) for split in ("validation", "test")}


def train(params: TransferParams, job: Job) -> Trained:
    """Step 1, then step 2: the layers are fine-tuned from there."""
    start = time.perf_counter()
    model = TransferNet(params.backbone, params.resolution, pretrained=True, mirror=params.mirror).to(job.device).eval()
    pretrained = digest_of_weights(model.backbone)
    frozen = {}
    if distributed.rank() == 0:  # the others take over its head when they train
        frozen = fit_head(model, params, job)
        print(f"a new head on frozen layers: test {frozen['frozen_test_accuracy']:.2%}", flush=True)
    seconds = time.perf_counter() - start

    first_filters = model.first_filters().detach().clone()
    history = fit(model, params.training, job, parameter_groups(model, params))
    return Trained(model, seconds + sum(epoch.seconds for epoch in history), history, frozen, first_filters, pretrained)


def parameter_groups(model: TransferNet, params: TransferParams) -> list[dict[str, Any]]:
    """The head, and the blocks above the frozen ones without their depthwise convolutions.

    These hold 6 % of EfficientNet-Lite0's weights, and their gradient has no fast kernel on a CPU: docs/training.md.
    """
    for layer in [*model.backbone.blocks()[: params.frozen_blocks], *model.backbone.depthwise_convolutions()]:
        layer.requires_grad_(False)
    body = [weight for weight in model.backbone.parameters() if weight.requires_grad]
    return [
        {"params": list(model.logit.parameters()), "rate_factor": HEAD_RATE_FACTOR},
        {"params": body, "rate_factor": 1.0},
    ]


def main() -> None:
    """Fit a head on frozen layers, then fine-tune."""
    params = load_params()
    if distributed.hand_over(params.processes):
        return
    transfer = params.transfer
    title = f"Transfer learning from ImageNet ({transfer.backbone}, {transfer.resolution} px)"
    run_approach("transfer", title, transfer.model_dump(), params, lambda job: train(transfer, job))


if __name__ == "__main__":
    run_as_command(main)
