"""Which device and precision are chosen; the GPUs are pretended, by what torch reports of them."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
import yaml

from pipeline.base.errors import PipelineError
from pipeline.learning import devices
from pipeline.learning.devices import choose_device, choose_precision
from pipeline.stages import check
from tests.conftest import ROOT, set_key

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one GPU; the list that this gives holds what is done to it."""
    done = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A card")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(str(device)))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: done.append(f"deterministic {on}"))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that monkeypatch restores it
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    backends = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [backend.fp32_precision for backend in backends]
    yield done
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision


def test_auto_takes_a_gpu_and_computes_true_float32_on_it(gpu):
    assert choose_device("auto") == GPU
    assert gpu == ["cuda:0"]
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert choose_device("cpu") == CPU


def test_a_gpu_is_deterministic_where_the_param_says_so(gpu):
    assert choose_device("cuda", deterministic=True) == GPU
    assert "deterministic True" in gpu
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("capabilities", "shown", "reason"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bfloat16 (AMX_BF16)", "this CPU multiplies it"),
        ({"avx512_bf16": True}, "bfloat16 (AVX512_BF16)", "this CPU multiplies it"),
        ({"avx2": True}, "float32", "this CPU has no bfloat16 arithmetic"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_multiplies_it(monkeypatch, capabilities, shown, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    precision = choose_precision(CPU)
    assert (str(precision), precision.reason) == (shown, reason)


@pytest.mark.parametrize(
    ("able", "shown", "reason"),
    [
        (True, "bfloat16 (tensor cores)", "A card multiplies it in tensor cores"),
        (False, "float32", "A card has no bfloat16 arithmetic"),
    ],
)
def test_a_gpu_gets_bfloat16_unless_it_would_only_emulate_it(gpu, monkeypatch, able, shown, reason):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able or including_emulation)
    precision = choose_precision(GPU)
    assert (str(precision), precision.reason) == (shown, reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, "device = 'cuda': torch finds no CUDA device here; allowed: auto or cpu"),
        ({"transfer.backbone": "efficientnet_b99"}, "efficientnet_b99"),
        (
            {"transfer.backbone": "vit_b_16", "transfer.resolution": 128},
            "resolution = 128: vit_b_16 takes",
        ),
        ({"transfer.frozen_blocks": 99}, "frozen_blocks"),
    ],
)
def test_the_first_stage_refuses_what_could_not_be_trained(document, in_tmp, monkeypatch, change, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for key, value in change.items():
        set_key(document, key, value)
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError, match=message) as caught:
        check.main()
    assert "\n" not in str(caught.value)
    assert not (in_tmp / ".cache/params-are-valid").exists()


def test_a_pipeline_that_can_be_trained_passes_the_first_stage(document, in_tmp):
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document | {"device": "cpu"}))
    shutil.copy2(ROOT / "requirements.lock", in_tmp)
    check.main()
    assert (in_tmp / ".cache/params-are-valid").exists()


def test_the_hardware_is_named_for_people(gpu):
    assert devices.describe_device(GPU) == "A card"
    assert "cores" in devices.describe_device(CPU)
