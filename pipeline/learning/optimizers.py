"""Keras's RMSprop, whose arithmetic differs from torch's, and the learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from pipeline.learning.params import TrainingParams


class KerasRMSprop(Optimizer):
    """RMSprop as `keras.optimizers.RMSprop()` computes it.

    v ← ρ·v + (1 − ρ)·g²,  w ← w − η·g / √(v + ε), with ρ = 0.9 and ε = 1e-7 *inside* the root
    (keras/src/optimizers/rmsprop.py). torch's RMSprop has α = 0.99, and ε = 1e-8 outside the root.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, rho: float = 0.9, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient, once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["mean_square"] = torch.zeros_like(weight)
            mean_squares = [self.state[weight]["mean_square"] for weight in weights]
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            # One call for all weights, as in torch's own optimizers: a call for each weight takes longer than the
            # arithmetic.
            torch._foreach_mul_(mean_squares, group["rho"])
            torch._foreach_addcmul_(mean_squares, gradients, gradients, value=1 - group["rho"])
            roots = torch._foreach_add(mean_squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(weights, gradients, roots, value=-group["lr"])
        return loss


def make_optimizer(parameter_groups: list[dict[str, Any]], params: TrainingParams) -> Optimizer:
    """The optimizer of `params`. Each group has `params` and `rate_factor`, which multiplies the learning rate."""
    groups = [
        {"params": group["params"], "lr": params.learning_rate * group["rate_factor"]} for group in parameter_groups
    ]
    kind = KerasRMSprop if params.optimizer == "rmsprop" else AdamW
    return kind(groups, lr=params.learning_rate, weight_decay=params.weight_decay)


def make_schedule(optimizer: Optimizer, params: TrainingParams, steps: int) -> LRScheduler:
    """The learning rate over `steps` steps: constant, or up for the first 15 % and then down almost to 0."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if params.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=0.15, div_factor=10, final_div_factor=100, cycle_momentum=False
    )
