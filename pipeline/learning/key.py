"""The key of a training: everything that can change what it learns.

DVC compares code, params, data and the locked versions of the libraries that compute: dvc.yaml has `SHARED_CODE` and
the approach's own module as dependencies, and a test holds the two to each other. Checkpoints and the measurements of
`make seeds`, `make ablation` and `make sweep` go by `training_key`. It adds what a machine brings: the versions that
are installed, the kind of device, the precision and the arithmetic that computes it.
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
"""The code in `pipeline/` on which every training depends."""

COMPUTING = ("numpy", "scikit-learn", "scipy", "timm", "torch", "torchvision")
"""The libraries whose arithmetic is in the weights."""


def code_of(module: str) -> list[Path]:
    """The files and folders, relative to `pipeline/`, on which a training of this approach depends."""
    own = Path("approaches") / module
    return [*SHARED_CODE, own if (PIPELINE / own).is_dir() else own.with_suffix(".py")]


def training_key(model: Model, params: Params, dataset: Dataset, device: torch.device) -> str:
    """SHA-256 over code, params, data, libraries, and what this machine brings."""
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


def locked_versions(lock: Path) -> dict[str, str]:
    """The versions of `COMPUTING` in a lock file in the format of requirements.txt.

    Raises:
        PipelineError: the lock misses one of them.
    """
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    if missing := [name for name in COMPUTING if name not in locked]:
        raise PipelineError(f"{lock} has no version of {', '.join(missing)}: `make lock` makes it anew")
    return {name: locked[name] for name in COMPUTING}
