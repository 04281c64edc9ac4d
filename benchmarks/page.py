"""What every page of measurements has: a line on how it was made, and tables."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import psutil
import torch

from pipeline.learning.devices import describe_device


def made_by(command: str, device: torch.device, *packages: str) -> str:
    """A paragraph: the command, the day, the commit, the hardware and the versions."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"Made by `{command}` on {made_on(device)}; {psutil.cpu_count(logical=False)} physical cores, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}.\n"
    )


def made_on(device: torch.device, precision: str = "") -> str:
    """Where and when something was measured: the day, the commit, the hardware, the precision."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    commit, trained_in = done.stdout.strip() or "unknown", f", {precision}" if precision else ""
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}: {describe_device(device)}{trained_in}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])
