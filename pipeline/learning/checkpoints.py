"""Where the state of a training waits for a killed process to come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHECKPOINTS = Path(".cache/checkpoints")


def checkpoint_path(name: str, key: str) -> Path:
    """Where a training with this `training_key` keeps its checkpoint: outside DVC's outs."""
    return CHECKPOINTS / f"{name}-{key[:16]}.pt"


def read_checkpoint(checkpoint: Path) -> Any:
    """What a training saved there, on the CPU; None where it is missing or damaged."""
    try:
        return torch.load(checkpoint, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except Exception as error:  # the loader raises nearly anything on a damaged file
        print(f"{checkpoint} is damaged ({type(error).__name__}): starting over")
        return None
