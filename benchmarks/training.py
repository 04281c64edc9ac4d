"""The lecture's network here against Keras on the same cores, epoch by epoch in turn -> benchmarks/training.md.

`make bench-training`. Keras is installed into an environment of its own, .cache/keras.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.page import made_by, table
from pipeline.approaches.cnn import LectureCnn
from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.files import atomic
from pipeline.data.dataset import load
from pipeline.learning.devices import choose_device, choose_precision

PAGE = Path("benchmarks/training.md")
KERAS = Path(".cache/keras")
REQUIREMENTS = Path("benchmarks/keras-requirements.txt")
LEVELS = (0.85, 0.88, 0.90)
GOAL_RATIO = 2.3


def install_keras() -> Path:
    """The Python of an environment that has Keras and TensorFlow, made where it is missing."""
    python = KERAS / "bin" / "python"
    stamp = KERAS / "installed"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        print(f"installing {', '.join(REQUIREMENTS.read_text().split())} into {KERAS}", flush=True)
        for command in (
            ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(KERAS)],
            ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "-r", str(REQUIREMENTS)],
        ):
            if subprocess.run(command, check=False).returncode:
                raise PipelineError(f"Keras cannot be installed: {' '.join(command)} failed")
        stamp.write_text(REQUIREMENTS.read_text())
    return python


class Worker:
    """A process that trains one epoch for each line that it gets."""

    def __init__(self, *command: str | Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        self.name = " ".join(map(str, command[1:3]))
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process runs
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment,
        )  # fmt: skip
        self.epochs: list[dict[str, float]] = []

    def epoch(self) -> None:
        """Train for one epoch and keep its report."""
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        stdin.write("\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["it printed nothing"])[-1]
            raise PipelineError(f"{self.name} ended by itself: {last}")
        self.epochs.append(json.loads(line))

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def seconds_to(self, accuracy: float) -> str:
        """Training seconds until the test accuracy was first reached."""
        seconds = 0.0
        for epoch in self.epochs:
            seconds += epoch["seconds"]
            if epoch["test_accuracy"] >= accuracy:
                return f"{seconds:.0f} s"
        return "not reached"


def gflops_of_a_product(dtype: torch.dtype, side: int = 2048) -> float:
    """The GFLOP/s of these cores in a matrix product: the best of several measurements."""
    first, second = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return float(2 * side**3 / min(_seconds(lambda: first @ second) for _ in range(8)) / 1e9)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def flops_of_an_image() -> float:
    """Multiplications and additions for one image in a training step of the lecture's network."""
    model, images = LectureCnn("grayscale"), torch.zeros(32, 32, 32, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return float(counter.get_total_flops() / len(images))


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def page(ours: Worker, keras: Worker, keras_versions: str) -> str:
    """The Markdown page."""
    device = choose_device("cpu")
    precision = choose_precision(device)
    images = len(load().rows("train")) + len(load().rows("validation"))
    skip = 1  # the first epoch of each also builds graphs and kernels
    times = [median(epoch["seconds"] for epoch in worker.epochs[skip:]) for worker in (ours, keras)]
    ratios = [k["seconds"] / o["seconds"] for o, k in zip(ours.epochs[skip:], keras.epochs[skip:], strict=True)]
    ratio = median(ratios)
    achieved = [flops_of_an_image() * images / seconds / 1e9 for seconds in times]
    rows = [
        ["an epoch of 10,000 images, median", *(f"{seconds:.2f} s" for seconds in times)],
        *([f"to {level:.0%} test accuracy", ours.seconds_to(level), keras.seconds_to(level)] for level in LEVELS),
        [
            f"test accuracy after {len(ours.epochs)} epochs",
            *(f"{worker.epochs[-1]['test_accuracy']:.2%}" for worker in (ours, keras)),
        ],
        ["GFLOP/s achieved", *(f"{value:.0f}" for value in achieved)],
        ["peak memory", *(f"{max(epoch['peak_mib'] for epoch in worker.epochs):.0f} MiB" for worker in (ours, keras))],
    ]
    limits = {dtype: gflops_of_a_product(dtype) for dtype in dict.fromkeys((torch.float32, precision.dtype))}
    shown = ", ".join(f"{value:.0f} GFLOP/s in {_named(dtype)}" for dtype, value in limits.items())
    return (
        "# Training the lecture's network: here and in Keras\n\n"
        f"Median ratio of {len(ratios)} pairs of epochs run in turn, batch 32 both: "
        f"**{ratio:.2f} times as fast as Keras** (from {min(ratios):.2f} to {max(ratios):.2f}; asked: {GOAL_RATIO}, "
        f"{'reached' if ratio >= GOAL_RATIO else 'not reached'}).\n\n"
        f"{table(['', 'here', 'Keras'], rows)}\n"
        f"The same network, the same optimizer (Keras's RMSprop), one seed each. Here in {precision}, and the weights "
        "tested are an average over the last steps.\n\n"
        f"The limit of these cores, a product of two 2048×2048 matrices: {shown}. Reached: "
        f"{achieved[0] / limits[precision.dtype]:.0%} of the limit of {_named(precision.dtype)}, in use here, "
        f"{achieved[1] / limits[torch.float32]:.0%} of float32's by Keras.\n\n"
        + made_by("make bench-training", device, "torch")
        + f"\nKeras's environment: {keras_versions}.\n"
    )


def main() -> None:
    """Install Keras, train both in turn, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30, help="of each (%(default)s)")
    epochs = parser.parse_args().epochs
    dataset = load()
    python = install_keras()
    arrays = Path(".cache/dataset.npz")
    test = dataset.rows("test")
    train = np.concatenate([dataset.rows("train"), dataset.rows("validation")])
    np.savez(
        arrays, train_images=dataset.images[train], train_labels=dataset.labels[train],
        test_images=dataset.images[test], test_labels=dataset.labels[test],
    )  # fmt: skip
    ours = Worker(sys.executable, "-m", "benchmarks.torch_worker", str(epochs))
    keras = Worker(python, "benchmarks/keras_worker.py", arrays, str(epochs))
    try:
        for number in range(1, epochs + 1):
            ours.epoch()
            keras.epoch()
            print(f"epoch {number}/{epochs}: {ours.epochs[-1]} here, {keras.epochs[-1]} in Keras", flush=True)
    finally:
        ours.end()
        keras.end()
    versions = "import keras, tensorflow; print(f'Keras {keras.__version__}, TensorFlow {tensorflow.__version__}')"
    printed = subprocess.run([python, "-c", versions], capture_output=True, text=True, check=True).stdout
    with atomic(PAGE) as temporary:
        temporary.write_text(page(ours, keras, printed.splitlines()[-1]))
    print(PAGE.read_text())


if __name__ == "__main__":
    run_as_command(main)
