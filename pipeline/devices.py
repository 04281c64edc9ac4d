"""Which device and which precision, and why."""

from __future__ import annotations

import ctypes
import platform
import sys

import psutil
import torch

from pipeline.errors import PipelineError
from pipeline.models import Classifier


def choose_device(wish: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> the device; `auto` takes a GPU where there is one.

    Raises:
        PipelineError: `cuda` was asked for and there is none.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise PipelineError("device = 'cuda': torch finds no CUDA device here; allowed: auto or cpu")
    # Convolutions outside mixed precision are true float32 on a GPU too: a packaged model must answer alike everywhere.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel after each batch.

    Response maps are allocations of many megabytes, which malloc maps and unmaps one by one: zeroing their pages anew
    took a sixth of a training step on two cores. Nothing happens where the C library is another one.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            most_maps, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
            mallopt(most_maps, 0)
            mallopt(trim_threshold, 2**31 - 1)


def choose_precision(model: Classifier, device: torch.device) -> tuple[torch.dtype, str]:
    """The type for mixed-precision training and a sentence saying why; float32 means none."""
    if device.type == "cuda":
        return torch.bfloat16, f"bfloat16: {torch.cuda.get_device_name(device)} multiplies it in tensor cores"
    capabilities = torch.cpu.get_capabilities()
    name = next((name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)), None)
    if name is None:
        return torch.float32, "float32: this CPU has no bfloat16 arithmetic"
    if not model.bfloat16_helps_on_cpu:
        return torch.float32, "float32: depthwise convolutions train slower in bfloat16 on a CPU"
    return torch.bfloat16, f"bfloat16: this CPU supports {name.upper()}, and the convolutions are dense"


def describe_device(device: torch.device) -> str:
    """The hardware that trains, for people: the GPU's name, or the CPU's, its cores in use and the memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{name}, {torch.get_num_threads()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
