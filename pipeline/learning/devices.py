"""Which device and which precision, and why."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass

import psutil
import torch

from pipeline.base.errors import PipelineError


@dataclass(frozen=True)
class Precision:
    """What a training multiplies in.

    Attributes:
        dtype: of mixed precision; float32 means that there is none.
        arithmetic: what the hardware multiplies it by, for example AVX512_BF16; the same inputs give other weights by
            another one.
        reason: a sentence that says why it was chosen.
    """

    dtype: torch.dtype
    arithmetic: str
    reason: str

    def __str__(self) -> str:
        """For people and for keys: bfloat16 (AVX512_BF16), or float32."""
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} ({self.arithmetic})" if self.arithmetic else name


def choose_device(wish: str, *, deterministic: bool = False, processes: int = 1) -> torch.device:
    """Make a device ready: `auto` (a GPU where there is one), `cpu` or `cuda`.

    Each of torchrun's processes gets a GPU of its own.

    Args:
        deterministic: make a GPU give the same bytes for the same seed; some of its algorithms are slower then.
        processes: how many are to train together on this machine; torchrun's own number comes first.

    Raises:
        PipelineError: `cuda` was asked for and there is none, or there are fewer GPUs than processes.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise PipelineError("device = 'cuda': torch finds no CUDA device here; allowed: auto or cpu")
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    processes = max(processes, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if processes > torch.cuda.device_count():
        raise PipelineError(
            f"processes = {processes}: each needs a GPU of its own and there are {torch.cuda.device_count()}; "
            "allowed: at most that many, or device: cpu"
        )
    # Convolutions outside mixed precision are true float32 on a GPU too: a packaged model must answer alike everywhere.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch wants the two alike
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch's notes on reproducibility ask for it
        torch.use_deterministic_algorithms(True)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel after each batch.

    Response maps take many megabytes, which malloc maps and unmaps one by one. Zeroing their pages again took a sixth
    of a training step on two cores. Another C library is left as it is.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            most_maps, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
            mallopt(most_maps, 0)
            mallopt(trim_threshold, 2**31 - 1)


def choose_precision(device: torch.device) -> Precision:
    """What to train in on `device`: bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "tensor cores", f"{name} multiplies it in tensor cores")
        return Precision(torch.float32, "", f"{name} has no bfloat16 arithmetic")
    capabilities = torch.cpu.get_capabilities()
    for name in ("amx_bf16", "avx512_bf16"):
        if capabilities.get(name):
            return Precision(torch.bfloat16, name.upper(), "this CPU multiplies it")
    return Precision(torch.float32, "", "this CPU has no bfloat16 arithmetic")


def describe_device(device: torch.device) -> str:
    """The hardware that trains, for people: the GPU's name, or the CPU's with its cores in use and the memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{name}, {torch.get_num_threads()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
