from __future__ import annotations

import math

import pytest
import torch

from pipeline.learning.optimizers import KerasRMSprop, make_optimizer, make_schedule
from pipeline.learning.params import TrainingParams

PARAMS = {
    "epochs": 1, "batch_size": 2, "optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.0,
    "schedule": "one_cycle", "flip": False, "shift": 0, "cutout": 0, "label_smoothing": 0.0, "ema_decay": 0.0,
}  # fmt: skip


def test_rmsprop_is_kerass_arithmetic_worked_by_hand():
    """w₀ = 1, gradients 3 then −1, η = 0.1: v₁ = 0.1·9, v₂ = 0.9·v₁ + 0.1·1, ε inside the root."""
    weight = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = KerasRMSprop([weight], lr=0.1)
    expected, mean_square = 1.0, 0.0
    for gradient in (3.0, -1.0):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        expected -= 0.1 * gradient / math.sqrt(mean_square + 1e-7)
        assert weight.item() == pytest.approx(expected, abs=1e-12)


def test_epsilon_lies_inside_the_root():
    """The gradient is tiny. Keras divides by √(1e-13 + 1e-7); torch, by √1e-13 + 1e-7, moves 760 times further."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.tensor([1e-6], dtype=torch.float64)
    KerasRMSprop([weight], lr=1.0).step()
    assert weight.item() == pytest.approx(-1e-6 / math.sqrt(1e-13 + 1e-7))


def test_weights_without_a_gradient_stay():
    weight = torch.nn.Parameter(torch.ones(1))
    KerasRMSprop([weight]).step()
    assert weight.item() == 1


def test_groups_keep_their_share_of_the_rate_all_along_the_schedule():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "rate_factor": factor} for factor in (2.0, 0.5)]
    params = TrainingParams.model_validate(PARAMS)
    optimizer = make_optimizer(groups, params)
    schedule = make_schedule(optimizer, params, steps=100)
    seen = []
    for _ in range(100):
        first, second = schedule.get_last_lr()
        assert first == pytest.approx(4 * second)
        seen.append(second)
        optimizer.step()
        schedule.step() if len(seen) < 100 else None
    assert max(seen) == pytest.approx(0.005, rel=1e-3)
    assert seen.index(max(seen)) == pytest.approx(15, abs=2)
    assert seen[-1] < 0.01 * max(seen)


def test_a_constant_schedule_is_constant():
    params = TrainingParams.model_validate(PARAMS | {"schedule": "constant"})
    optimizer = make_optimizer([{"params": [torch.nn.Parameter(torch.ones(1))], "rate_factor": 1.0}], params)
    schedule = make_schedule(optimizer, params, steps=10)
    for _ in range(10):
        optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [0.01]
