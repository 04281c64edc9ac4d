"""The checkpoint of a training, from which a killed training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHECKPOINTS = Path(".cache/checkpoints")


def checkpoint_path(name: str, key: str) -> Path:
    """The checkpoint file of the training with this `training_key`. DVC deletes its outs before a run, but not this."""
    return CHECKPOINTS / f"{name}-{key[:16]}.pt"


def read_checkpoint(checkpoint: Path) -> Any:
    """Read the saved state of a training onto the CPU; None if the file is missing or damaged."""
    try:
        return torch.load(checkpoint, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except Exception as error:  # on a damaged file the loader may raise almost any error
        print(f"{checkpoint} is damaged ({type(error).__name__}): starting over")
        return None
