"""What a checkpoint and a measurement belong to: everything that can change what a training learns."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import repeated
from pipeline import approaches
from pipeline.learning import key
from pipeline.learning.devices import Precision
from pipeline.learning.key import training_key

CPU = torch.device("cpu")


@pytest.fixture
def model(params):
    return approaches.model(params, "cnn", "tuned")


def in_precision(monkeypatch, dtype: torch.dtype, arithmetic: str) -> None:
    monkeypatch.setattr(key, "choose_precision", lambda _: Precision(dtype, arithmetic, "a test"))


def test_params_seed_data_and_split_make_another_key(model, params, dataset):
    training = model.params.training
    changed = model.params.model_copy(update={"training": training.model_copy(update={"epochs": training.epochs + 1})})
    other_split = dataset.manifest.assign(split=dataset.manifest["split"].replace("validation", "train"))
    keys = [
        training_key(model, params, dataset, CPU),
        training_key(replace(model, params=changed), params, dataset, CPU),
        training_key(approaches.model(params, "cnn", "lecture"), params, dataset, CPU),
        training_key(model, params.model_copy(update={"seed": 1}), dataset, CPU),
        training_key(model, params.model_copy(update={"deterministic": True}), dataset, CPU),
        training_key(model, params, replace(dataset, digest="other"), CPU),
        training_key(model, params, replace(dataset, manifest=other_split), CPU),
        training_key(model, params, dataset, torch.device("cuda")) if torch.cuda.is_available() else "no GPU here",
    ]
    assert len(set(keys)) == len(keys)
    assert training_key(model, params, dataset, CPU) == keys[0]


def test_another_arithmetic_is_another_key_so_no_checkpoint_goes_on_in_it(model, params, dataset, monkeypatch):
    keys = set()
    for dtype, arithmetic in (
        (torch.float32, ""), (torch.bfloat16, "AVX512_BF16"), (torch.bfloat16, "AMX_BF16"),
    ):  # fmt: skip
        in_precision(monkeypatch, dtype, arithmetic)
        keys.add(training_key(model, params, dataset, CPU))
    assert len(keys) == 3


def test_what_is_always_float64_has_the_same_key_in_any_arithmetic(params, dataset, monkeypatch):
    baseline = approaches.model(params, "baseline")
    before = training_key(baseline, params, dataset, CPU)
    in_precision(monkeypatch, torch.bfloat16, "AMX_BF16")
    assert training_key(baseline, params.model_copy(update={"device": "cpu"}), dataset, CPU) == before


def test_another_version_of_a_library_that_computes_is_another_key(model, params, dataset, monkeypatch):
    before = training_key(model, params, dataset, CPU)
    monkeypatch.setattr(key, "version", lambda name: "999" if name == "scipy" else "1")
    other = training_key(model, params, dataset, CPU)
    monkeypatch.setattr(key, "version", lambda _: "1")
    assert len({before, other, training_key(model, params, dataset, CPU)}) == 3


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"cnn": {"accuracy": 1.0}}',
     json.dumps({"key": "of another training", "hardware": "this machine", "origin": "", "figures": {"cnn": {}}}),
     json.dumps({"key": "the key", "hardware": "another machine", "origin": "", "figures": {"cnn": {}}})],
)  # fmt: skip
def test_a_measurement_that_is_not_of_this_key_and_machine_is_made_anew(tmp_path, content):
    path = tmp_path / "measured.json"
    path.write_text(content)
    assert not repeated._was_measured(path, "the key", "this machine")
    path.write_text(json.dumps({"key": "the key", "hardware": "this machine", "origin": "", "figures": {"cnn": {}}}))
    assert repeated._was_measured(path, "the key", "this machine")
