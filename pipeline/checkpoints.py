"""Where the state of a training waits for a killed process to come back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from pipeline.files import digest_of


def checkpoint_path(name: str, **identity: Any) -> Path:
    """Where the checkpoint of a training lives: outside DVC's outs, one for each params, data and code."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    identity |= {"code": hashlib.sha256(code).hexdigest(), "torch": torch.__version__}
    return Path(".cache/checkpoints") / f"{name}-{digest_of(identity)[:16]}.pt"


def read_checkpoint(checkpoint: Path) -> Any:
    """What a training saved there, on the CPU; None where it is missing or damaged."""
    try:
        return torch.load(checkpoint, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes of the loader
        print(f"{checkpoint} is damaged ({type(error).__name__}): starting over")
        return None
