"""How much chance changes each accuracy: trains every network under several seeds -> benchmarks/seeds.md, on a GPU
benchmarks/seeds-gpu.md.

`make seeds`. It does not repeat a training that was done under the same params, data and code.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.page import made_by, table
from benchmarks.repeated import train_once
from pipeline.base.errors import run_as_command
from pipeline.base.files import atomic
from pipeline.base.params import Params, load_params
from pipeline.commands.sweep import tunable
from pipeline.learning.devices import choose_device, keep_freed_memory

PAGES = {"cpu": Path("benchmarks/seeds.md"), "cuda": Path("benchmarks/seeds-gpu.md")}
ON_GPU = "transfer on one GPU"
GOALS = {
    "cnn-lecture": (0.890, 75), "cnn-tuned": (0.935, 150), "transfer, frozen": (0.94, 150), "transfer": (0.98, 420),
    ON_GPU: (0.983, 90),
}  # fmt: skip
"""The goals of this project, in mean test accuracy and seconds of training: on two CPU cores, the last on a GPU."""


def for_gpu(params: Params) -> Params:
    """What a GPU has the time for: more pixels and more epochs of transfer learning."""
    transfer = params.approaches["transfer"]
    changed = {"resolution": 192, "training": transfer["training"] | {"epochs": 12}}
    return params.model_copy(update={"approaches": params.approaches | {"transfer": transfer | changed}})


def train_seed(name: str, seed: int) -> dict[str, Any]:
    """Train one model of params.yaml under one seed."""
    params = load_params()
    if name == ON_GPU:
        return {ON_GPU: train_once(tunable(for_gpu(params))["transfer"], seed, "transfer-for-gpu")["transfer-for-gpu"]}
    return train_once(tunable(params)[name], seed)


def row(model: str, runs: list[dict[str, Any]], device: torch.device) -> list[str]:
    """A line of the table; a goal in seconds is for one kind of hardware, and does not count on another."""
    goal_accuracy, goal_seconds = GOALS.get(model, (0.0, float("inf")))
    goal = f"≥ {goal_accuracy:.1%}, ≤ {goal_seconds} s" if model in GOALS else ""
    if not runs:
        return [model, "not measured", "", "", "", goal, "no GPU was at hand"]
    accuracies = np.array([run["accuracy"] for run in runs])
    seconds = float(np.median([run["seconds"] for run in runs]))
    spread = f" ± {accuracies.std(ddof=1):.2%}" if len(runs) > 1 else ""
    # A head on frozen layers has no epochs, and a CPU has no utilisation.
    speeds = [f"{run['images_per_second']:,.0f}" for run in runs[:1] if run.get("images_per_second")]
    speeds += [f"GPU {run['utilisation']:.0%} used" for run in runs[:1] if run.get("utilisation") is not None]
    on_its_hardware = (device.type == "cuda") == (model == ON_GPU)
    reached = ["yes" if accuracies.mean() >= goal_accuracy else "no"]
    reached += [("yes" if seconds <= goal_seconds else "no") if on_its_hardware else "other hardware"]
    return [
        model,
        f"{accuracies.mean():.2%}{spread}",
        ", ".join(f"{accuracy:.2%}" for accuracy in accuracies),
        f"{seconds:.0f} s",
        ", ".join(speeds),
        goal,
        " and ".join(reached) if goal else "",
    ]


def page(measured: dict[str, list[dict[str, Any]]], device: torch.device, command: str) -> str:
    """The Markdown page of the measurements, by model, one for each seed."""
    rows = [row(model, runs, device) for model, runs in (measured | {ON_GPU: measured.get(ON_GPU, [])}).items()]
    header = ["model", "test accuracy, mean ± standard deviation", "each seed", "training, median"]
    header += ["images / s, seed 0", "asked", "reached"]
    origins = sorted({run["origin"] for runs in measured.values() for run in runs if "origin" in run})
    return (
        "# Accuracy over seeds\n\n"
        "Seeds change the first weights, the order of the images, the augmentation and dropout; the split stays. "
        "2,000 test images: beside the spread over seeds, another draw of test images would move 98 % by ±0.6 points, "
        "90 % by ±1.3 (95 % intervals).\n\n"
        f"{table(header, rows)}\n"
        + made_by(command, device, "torch", "timm", "numpy")
        + "".join(f"\nMeasured on {origin}.\n" for origin in origins)
    )


def main() -> None:
    """Train every model under every seed, and write the page."""
    names = list(tunable(load_params()))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 (%(default)s)")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    keep_freed_memory()
    measured: dict[str, list[dict[str, Any]]] = {}
    device = choose_device(load_params().device)
    for model in [*arguments.models, *([ON_GPU] if device.type == "cuda" else [])]:
        for seed in range(arguments.seeds):
            for name, run in train_seed(model, seed).items():
                measured.setdefault(name, []).append(run)
    with atomic(PAGES[device.type]) as temporary:
        temporary.write_text(page(measured, device, "make seeds"))
    print(f"\n{PAGES[device.type].read_text()}")


if __name__ == "__main__":
    run_as_command(main)
