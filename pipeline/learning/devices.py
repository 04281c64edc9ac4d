"""The choice of a device and a precision."""

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
    """The precision of a training.

    Attributes:
        dtype: the dtype of mixed precision; float32 means that mixed precision is off.
        arithmetic: the hardware's unit that multiplies this dtype, for example AVX512_BF16. Another unit gives other
            weights from the same inputs.
        reason: a sentence that says why it was chosen.
    """

    dtype: torch.dtype
    arithmetic: str
    reason: str

    def __str__(self) -> str:
        """The text for people and for keys, such as bfloat16 (AVX512_BF16) or float32."""
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} ({self.arithmetic})" if self.arithmetic else name


def choose_device(wish: str, *, deterministic: bool = False, processes: int = 1) -> torch.device:
    """Choose and prepare a device. `wish` is `auto` (a GPU if the machine has one), `cpu` or `cuda`.

    Each of torchrun's processes gets its own GPU.

    Args:
        deterministic: make a GPU give the same bytes for the same seed; some of its algorithms are slower then.
        processes: how many processes train together on this machine. If torchrun started more, their number counts.

    Raises:
        PipelineError: `wish` is `cuda` but torch finds no GPU, or the machine has fewer GPUs than processes.
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
    # Outside mixed precision a GPU must also compute convolutions in true float32, because a packaged model must give
    # the same answers everywhere.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch requires that both are equal
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by torch's notes on reproducibility
        torch.use_deterministic_algorithms(True)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel after each batch.

    Response maps take many megabytes. By default malloc maps and unmaps each of them, and zeroing the pages again took
    a sixth of a training step on two cores. With another C library this function does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            most_maps, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
            mallopt(most_maps, 0)
            mallopt(trim_threshold, 2**31 - 1)


def choose_precision(device: torch.device) -> Precision:
    """The precision of a training on `device`: bfloat16 if the hardware multiplies it, else float32."""
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
    """The hardware in words: the name of the GPU, or the name of the CPU, its cores in use and the memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{name}, {torch.get_num_threads()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
