"""The first 20 losses of every recipe in params.yaml, so that a change which should not change numbers is seen not to.

A recipe or the arithmetic was changed on purpose: `pytest tests/test_golden.py --refresh-golden` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline import training
from pipeline.stages import cnn, transfer
from pipeline.training import Job

FILE = Path(__file__).parent / "golden_losses.json"
STEPS = 20
RELATIVE, ABSOLUTE = 2e-3, 1e-4
"""What other processors' float32 sums may differ by; a changed recipe differs by far more from the first steps on."""


class Enough(BaseException):
    pass


@pytest.mark.parametrize("recipe", ["lecture", "tuned", "transfer"])
def test_the_first_losses_are_the_golden_ones(recipe, params, dataset, tmp_path, monkeypatch, request):
    losses = []
    step = training._Training._step

    def recorded(self, rows, where):
        loss, right = step(self, rows, where)
        losses.append(loss)
        if len(losses) == STEPS:
            raise Enough
        return loss, right

    monkeypatch.setattr(training._Training, "_step", recorded)
    monkeypatch.setattr(training, "choose_precision", lambda _: (torch.float32, "float32: the same on every processor"))
    job = Job(dataset, seed=0, device=torch.device("cpu"), checkpoint=tmp_path / "checkpoint.pt")
    section = params.transfer if recipe == "transfer" else getattr(params.cnn, recipe)
    # Small batches and pictures, for 160 images and a short test; all else is the recipe's own.
    section = section.model_copy(update={"training": section.training.model_copy(update={"batch_size": 16})})
    train = transfer.train if recipe == "transfer" else cnn.train
    if recipe == "transfer":
        section = section.model_copy(update={"resolution": 32})
    with pytest.raises(Enough):
        train(section, job)
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--refresh-golden"):
        FILE.write_text(json.dumps(golden | {recipe: [round(loss, 6) for loss in losses]}, indent=1) + "\n")
        pytest.skip(f"{FILE.name} has new losses of {recipe}")
    assert losses == pytest.approx(golden[recipe], rel=RELATIVE, abs=ABSOLUTE)
