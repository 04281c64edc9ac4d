"""Data-parallel training: torchrun starts the processes, DistributedDataParallel averages their gradients.

Each process takes its share of every batch, so batches and schedule are the same as with one process. The weights
differ slightly, because sums have another order and each process draws its own dropout. Only the leader (rank 0)
prints, writes and logs. All functions here also work in a single process.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the others wait while the leader fits the head on frozen layers."""


def hand_over(processes: int) -> bool:
    """Run the current `python -m` command in `processes` processes of this machine, unless this process is one of them.

    If one of the processes fails, this process exits with 1.

    Returns:
        Whether the command was run; then the caller has nothing left to do.

    Raises:
        KeyboardInterrupt: Ctrl-C, which torchrun has passed on to the processes.
    """
    if processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    from torch.distributed import run  # noqa: PLC0415  # takes a second, needed only here
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415

    # Divide the cores among the processes. torchrun would give each process one core, and print a warning about it.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process has printed why
    module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
    try:
        run.main(["--standalone", "--nproc-per-node", str(processes), "-m", module, *sys.argv[1:]])
    except ChildFailedError:
        sys.exit(1)
    except SignalException:
        raise KeyboardInterrupt from None
    return True


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, while the block runs. Without torchrun this does nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 for the leader."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model for training: it gets the leader's weights, and its gradients are averaged over all processes."""
    if not dist.is_initialized():
        return model
    # The buffers are constants (normalisation, enlarging) and the same in every process.
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def total(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank, in every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def of_leader(value: Any) -> Any:
    """The leader's value, in every process."""
    if dist.is_initialized():
        shared = [value]
        dist.broadcast_object_list(shared)
        return shared[0]
    return value
