"""Data-parallel training: torchrun starts the processes, DistributedDataParallel averages their gradients.

Each process takes its share of every batch, so batches and schedule are those of one process; the weights differ by the
order of sums, and by dropout, which each process draws for itself. The leader (rank 0) alone prints, writes and logs.
Everything here also works in a process that is on its own.
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
"""How long processes wait for each other: the leader fits the head on frozen layers while the others wait."""


def hand_over(processes: int) -> bool:
    """Run the current `python -m` command in so many processes of this machine, if it is not one of them already.

    Returns:
        Whether that was done: the caller has nothing left to do. It exits with 1 where one of the processes failed.

    Raises:
        KeyboardInterrupt: Ctrl-C, which torchrun has passed on to the processes.
    """
    if processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    from torch.distributed import run  # noqa: PLC0415  # takes a second, which only this path is worth
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415

    # Share out the cores too; torchrun would give each process one, and say so in five lines.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the process that failed has said why
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
    """Be part of the processes that torchrun started, while the block runs; nothing where it did not start this one."""
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
    """The module to train by: it starts from the leader's weights, and its gradients are the mean of all processes'."""
    if not dist.is_initialized():
        return model
    # The buffers are constants (normalisation, enlarging), the same in every process.
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(value: Any) -> list[Any]:
    """Each process's value, by rank, in every process."""
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
