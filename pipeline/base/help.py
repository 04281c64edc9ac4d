"""The text of `python -m pipeline.stages.NAME --help`: the purpose of a stage, and its entry in dvc.yaml."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml


def dvc_stages() -> dict[str, Any]:
    """The stages of dvc.yaml in the current folder, by name; empty if the file is missing."""
    try:
        stages: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    except (OSError, KeyError):
        return {}
    return stages


def stage_help() -> str | None:
    """The help of the stage that this process runs: docstring, files, params. None if it does not run a stage."""
    module = sys.modules["__main__"]
    package, _, name = module.__spec__.name.rpartition(".") if module.__spec__ else ("", "", "")
    if package != "pipeline.stages":
        return None
    command = f"python -m {package}.{name}"
    entries = {key: stage for key, stage in dvc_stages().items() if f"{stage['cmd']} ".startswith(f"{command} ")}
    if not entries:
        return None
    return "\n\n".join([(module.__doc__ or "").strip(), *(_entry_help(key, stage) for key, stage in entries.items())])


def _entry_help(name: str, stage: dict[str, Any]) -> str:
    """The entry of one stage in dvc.yaml, as text."""

    def listed(key: str) -> str:
        entries = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in stage.get(key, [])]
        return "".join(f"\n  {entry}" for entry in entries if not entry.startswith("pipeline/")) or "\n  nothing"

    choices = "".join(
        f"\n\nonce for each {variable}:\n  {', '.join(values)}" for variable, values in stage.get("matrix", {}).items()
    )
    params = ", ".join(stage.get("params", [])) or "none"
    text = (
        f"usage: `dvc repro {name}`, which runs: {stage['cmd']}{choices}\n\n"
        f"reads:{listed('deps')}\n\nwrites:{listed('outs')}{listed('metrics') if 'metrics' in stage else ''}\n\n"
        f"params, in params.yaml:\n  {params}"
    )
    return re.sub(r"\$\{item\.(\w+)\}", lambda variable: variable[1].upper(), text)
