"""What every page of measurements says about how it was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import psutil
import torch

from pipeline.devices import describe_device


def made_by(command: str, device: torch.device, *packages: str) -> str:
    """A paragraph: the command, the day, the commit, the hardware and the versions."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}, commit {done.stdout.strip() or 'unknown'}: "
        f"{describe_device(device)}; {psutil.cpu_count(logical=False)} physical cores, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}.\n"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])
