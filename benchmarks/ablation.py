"""What each difference between the lecture's recipe and the tuned one is worth -> benchmarks/ablation.json and .md.

`make ablation`. It starts from `cnn.lecture` of params.yaml and makes one of DIFFERENCES after the other, until it has
`cnn.tuned`. It trains each recipe under several seeds. It does not repeat a training that was done under the same
params, data and code.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from benchmarks.page import made_by, table
from benchmarks.repeated import train_once
from pipeline import approaches
from pipeline.approaches.cnn import CnnParams
from pipeline.base.errors import run_as_command
from pipeline.base.files import atomic, write_json
from pipeline.base.params import load_params
from pipeline.learning.devices import choose_device, keep_freed_memory

PAGE = Path("benchmarks/ablation.md")
DIFFERENCES = {
    "in colour": ("color",),
    "flips and shifts": ("flip", "shift", "cutout"),
    "optimizer, rates and average": (
        "optimizer", "schedule", "learning_rate", "weight_decay", "batch_size", "label_smoothing", "ema_decay",
    ),
    "more epochs": ("epochs",),
    "mean with the mirror image": ("mirror",),
}  # fmt: skip
"""The changes, in this order, and the params of each."""


def steps(start: CnnParams, end: CnnParams) -> dict[str, CnnParams]:
    """The recipes from `start` to `end`; the name of each says what it adds to the one before."""
    recipes, latest = {"the lecture's recipe": start}, start
    for name, keys in DIFFERENCES.items():
        knobs = {key: value for key, value in end.training.model_dump().items() if key in keys}
        own = {key: value for key, value in end.model_dump(exclude={"training"}).items() if key in keys}
        changed = latest.model_copy(update=own | {"training": latest.training.model_copy(update=knobs)})
        if changed != latest:
            recipes[name] = latest = changed
    return recipes


def summarise(measured: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """One entry a step: its accuracies, and how far it lies above the step before (Welch's t-test over the seeds)."""
    entries: list[dict[str, Any]] = []
    for name, runs in measured.items():
        accuracies = [run["accuracy"] for run in runs]
        entry: dict[str, Any] = {"step": name, "test_accuracies": accuracies, "mean": float(np.mean(accuracies))}
        entry["deviation"] = float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None
        entry["seconds"] = float(np.median([run["seconds"] for run in runs]))
        entry |= {"gain": None, "p": None}
        if entries:
            before = entries[-1]
            entry["gain"] = entry["mean"] - before["mean"]
            test = ttest_ind(accuracies, before["test_accuracies"], equal_var=False) if len(runs) > 1 else None
            entry["p"] = float(test.pvalue) if test and np.isfinite(test.pvalue) else None
        entries.append(entry)
    return entries


def page(document: dict[str, Any]) -> str:
    """The Markdown page."""
    rows = []
    for entry in document["steps"]:
        spread = "" if entry["deviation"] is None else f" ± {entry['deviation']:.2%}"
        gain = "" if entry["gain"] is None else f"{entry['gain'] * 100:+.2f} points"
        verdict = "" if entry["p"] is None else f"{entry['p']:.2g}, {'real' if entry['p'] < 0.05 else 'noise'}"
        rows.append([entry["step"], f"{entry['mean']:.2%}{spread}", gain, verdict, f"{entry['seconds']:.0f} s"])
    header = ["each step adds", "test accuracy, mean ± standard deviation", "gain", "p (Welch)", "training, median"]
    return (
        "# From the lecture's recipe to the tuned one\n\n"
        "The same network and the same images; each line changes one thing more. "
        f"{document['seeds']} seeds; a gain whose p is above 0.05 is called noise.\n\n"
        f"{table(header, rows)}\n{document['made_by']}"
    )


def main() -> None:
    """Train every step under every seed, and write the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 (%(default)s)")
    seeds = parser.parse_args().seeds
    keep_freed_memory()
    params = load_params()
    measured: dict[str, list[dict[str, float]]] = {}
    lecture, tuned = (approaches.model(params, "cnn", recipe) for recipe in ("lecture", "tuned"))
    assert isinstance(lecture.params, CnnParams) and isinstance(tuned.params, CnnParams)  # noqa: S101
    for name, recipe in steps(lecture.params, tuned.params).items():
        for seed in range(seeds):
            measured.setdefault(name, []).append(train_once(replace(lecture, params=recipe), seed, name)[name])
    device = choose_device(params.device)
    document = {
        "seeds": seeds,
        "recipes": params.approaches["cnn"],
        "steps": summarise(measured),
        "made_by": made_by("make ablation", device, "torch", "numpy"),
    }
    write_json(PAGE.with_suffix(".json"), document)
    with atomic(PAGE) as temporary:
        temporary.write_text(page(document))
    print(f"\n{PAGE.read_text()}")


if __name__ == "__main__":
    run_as_command(main)
