"""`python -m pipeline.stages.NAME --help`: what a stage is for, and what dvc.yaml says of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml


def stage_help() -> str | None:
    """The help of the stage that this process runs: docstring, what it reads and writes, params. None of no stage."""
    module = sys.modules["__main__"]
    package, _, name = module.__spec__.name.rpartition(".") if module.__spec__ else ("", "", "")
    if package != "pipeline.stages":
        return None
    try:
        stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name]
    except (OSError, KeyError):
        return None

    def listed(key: str) -> str:
        entries = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in stage.get(key, [])]
        return "".join(f"\n  {entry}" for entry in entries if not entry.startswith("pipeline/")) or "\n  nothing"

    choices = "".join(
        f"\n\n{variable}, each in turn:\n  {', '.join(values)}" for variable, values in stage.get("matrix", {}).items()
    )
    params = ", ".join(stage.get("params", [])) or "none"
    text = (
        f"{(module.__doc__ or '').strip()}\n\nusage: `dvc repro {name}`, which runs: {stage['cmd']}{choices}\n\n"
        f"reads:{listed('deps')}\n\nwrites:{listed('outs')}{listed('metrics') if 'metrics' in stage else ''}\n\n"
        f"params, in params.yaml:\n  {params}"
    )
    return re.sub(r"\$\{item\.(\w+)\}", lambda found: found[1].upper(), text)
