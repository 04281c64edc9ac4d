"""The first 20 losses of every recipe in params.yaml: a change of the code that changes numbers fails here.

If a recipe or the arithmetic was changed on purpose, `pytest tests/test_golden.py --refresh-golden` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline import approaches
from pipeline.learning import loop as training
from pipeline.learning.approach import Job
from pipeline.learning.devices import Precision

FILE = Path(__file__).parent / "golden_losses.json"
STEPS = 20
RELATIVE, ABSOLUTE = 2e-3, 1e-4
"""How much float32 sums may differ on another processor; a changed recipe differs far more from the first steps on."""


class Enough(BaseException):
    pass


@pytest.mark.parametrize("recipe", ["cnn-lecture", "cnn-tuned", "transfer"])
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
    monkeypatch.setattr(
        training, "choose_precision", lambda _: Precision(torch.float32, "", "the same on every processor")
    )
    job = Job(dataset, seed=0, device=torch.device("cpu"), checkpoint=tmp_path / "checkpoint.pt")
    model = approaches.models(params)[recipe]
    # Small batches and pictures, for 160 images and a short test; all else is the recipe's own.
    changes = {"training": model.training.model_copy(update={"batch_size": 16})}
    if "resolution" in type(model.params).model_fields:
        changes["resolution"] = 32
    with pytest.raises(Enough):
        model.approach.train(model.params.model_copy(update=changes), job)
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--refresh-golden"):
        FILE.write_text(json.dumps(golden | {recipe: [round(loss, 6) for loss in losses]}, indent=1) + "\n")
        pytest.skip(f"{FILE.name} has new losses of {recipe}")
    assert losses == pytest.approx(golden[recipe], rel=RELATIVE, abs=ABSOLUTE)


def test_every_recipe_has_golden_losses(params):
    trained_by_the_loop = {name for name, model in approaches.models(params).items() if model.training}
    assert json.loads(FILE.read_text()).keys() == trained_by_the_loop
