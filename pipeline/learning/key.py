"""The key of a training: a digest of everything that can change what it learns.

DVC compares code, params, data and the locked versions of the computing libraries. The code is `SHARED_CODE` and the
approach's own module; a test checks that dvc.yaml lists the same files. Checkpoints, `make seeds`, `make ablation` and
`make sweep` use `training_key`. It also covers the machine: the installed versions, the kind of device, the precision
and its arithmetic.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.base.errors import PipelineError
from pipeline.base.files import digest_of, digest_of_files
from pipeline.base.params import Params
from pipeline.data.dataset import Dataset
from pipeline.learning import processes
from pipeline.learning.approach import Model
from pipeline.learning.devices import choose_precision

PIPELINE = Path(__file__).parent.parent
SHARED_CODE = (Path("learning"), Path("data/dataset.py"))
"""The code in `pipeline/` that every training depends on."""

COMPUTING = ("numpy", "scikit-learn", "scipy", "timm", "torch", "torchvision")
"""The libraries whose arithmetic can change the weights."""


def code_of(module: str) -> list[Path]:
    """The files and folders, relative to `pipeline/`, that a training of this approach depends on."""
    own = Path("approaches") / module
    return [*SHARED_CODE, own if (PIPELINE / own).is_dir() else own.with_suffix(".py")]


def training_key(model: Model, params: Params, dataset: Dataset, device: torch.device) -> str:
    """SHA-256 over code, params, data, installed libraries, device and precision."""
    tops = [PIPELINE / path for path in code_of(model.module)]
    files = [file for top in tops for file in (top.rglob("*.py") if top.is_dir() else [top])]
    return digest_of(
        {
            "code": digest_of_files(files, PIPELINE),
            "params": model.recipe(params, processes.size()),
            "data": [dataset.digest, dataset.split_digest],
            "libraries": {name: version(name) for name in COMPUTING},
            "device": device.type,
            "precision": precision_of(model, device),
        }
    )


def precision_of(model: Model, device: torch.device) -> str:
    """The precision and the arithmetic of a training, as the card and the key name them."""
    return model.approach.precision or str(choose_precision(device))


def locked_versions(lock: Path) -> dict[str, list[str]]:
    """The versions of `COMPUTING` in a lock file in the format of requirements.txt, the same on every machine.

    A library can have several versions, each for its own versions of Python.

    Raises:
        PipelineError: the lock file lacks one of them.
    """
    locked: dict[str, list[str]] = {name: [] for name in COMPUTING}
    for name, pinned in re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        if name in locked:
            locked[name].append(pinned)
    if missing := [name for name, versions in locked.items() if not versions]:
        raise PipelineError(f"{lock} has no version of {', '.join(missing)}: `make lock` writes it again")
    return locked
