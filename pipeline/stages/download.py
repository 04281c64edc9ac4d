"""Stage `download`: CIFAR-10 -> data/cifar10/*.bin, six verified record files."""

import os
from pathlib import Path

from pipeline.base.errors import run_as_command
from pipeline.base.files import CIFAR10
from pipeline.base.params import load_params
from pipeline.data.cifar10 import download


def main() -> None:
    """Fetch the missing files. `CIFAR10_ARCHIVE=/path/to/archive` takes them from the user's own archive."""
    own = os.environ.get("CIFAR10_ARCHIVE")
    download(load_params().download, CIFAR10, Path(own) if own else None, Path(".cache/downloads"))


if __name__ == "__main__":
    run_as_command(main)
