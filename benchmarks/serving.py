"""The service against `mlflow models serve`, a bare handler and ONNX Runtime alone, in turn -> benchmarks/serving.md.

`make bench-serving`. All serve the champion, for the same images and the same client on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import psutil
import torch
from numpy.typing import NDArray
from starlette.requests import Request

from benchmarks import servers
from benchmarks.page import made_by, table
from benchmarks.servers import CORES, FORM, MODEL, PORTS, Runs, form_of, load
from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.files import BENTO, atomic
from pipeline.commands.served import png, running
from pipeline.data import dataset as datasets
from serving.classifier import BATCH
from serving.images import read_image
from serving.uploads import read_upload

PAGE = Path("benchmarks/serving.md")
CONCURRENCIES = (1, 8, 32)


def onnx_alone(images: NDArray[np.uint8], batch: int, threads: int, processes: int, seconds: float) -> float:
    """Images a second of ONNX Runtime, which runs `batch` of the images (uint8 `[N, 32, 32, 3]`) in a loop."""
    code = (
        "import sys, time, numpy as np, onnxruntime as ort\n"
        "options = ort.SessionOptions(); options.intra_op_num_threads = int(sys.argv[2])\n"
        f"session = ort.InferenceSession({str(MODEL)!r}, options)\n"
        "images = np.load(sys.argv[1])[: int(sys.argv[3])]\n"
        "for _ in range(3): session.run(None, {'images': images})\n"
        "start, count = time.perf_counter(), 0\n"
        "while time.perf_counter() < start + float(sys.argv[4]): session.run(None, {'images': images}); count += 1\n"
        "print(count * len(images) / (time.perf_counter() - start))\n"
    )
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, images)
        file.flush()
        arguments = [sys.executable, "-c", code, file.name, str(threads), str(batch), str(seconds)]
        started = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        return sum(float(process.communicate()[0]) for process in started)


def parts_of_a_request(files: list[bytes]) -> dict[str, float]:
    """Milliseconds that each part of a request takes in one thread: the median of several measurements."""
    body = form_of(files)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options)
    pixels = np.stack([read_image(file).pixels for file in files])
    answers = [{"label": "car", "probability": 0.5, "filename": "i.png", "sha256": "0" * 64}] * len(files)

    async def parse() -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(messages)

        scope = {"type": "http", "headers": [(b"content-type", FORM.encode())], "query_string": b""}
        await read_upload(Request(scope, receive), "images", len(files))

    def infer() -> None:
        for start in range(0, len(files), BATCH):
            session.run(None, {"images": pixels[start : start + BATCH]})

    return {
        "reading the form": _milliseconds(lambda: asyncio.run(parse())),
        "decoding the PNG files": _milliseconds(lambda: [read_image(file) for file in files]),
        "the model": _milliseconds(infer),
        "writing JSON": _milliseconds(lambda: json.dumps(answers)),
    }


def _milliseconds(function: Callable[[], Any], times: int = 15) -> float:
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        durations.append((time.perf_counter() - start) * 1000)
    return median(durations)


def environment_megabytes() -> float:
    """The size of an environment that has only what the Bento needs."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(BENTO) as bento:
        member = next(member for member in bento.getmembers() if member.name.endswith("python/requirements.txt"))
        content = bento.extractfile(member)
        wanted, place = Path(scratch) / "requirements.txt", Path(scratch) / "venv"
        wanted.write_bytes(content.read() if content else b"")
        for command in (
            ["uv", "venv", "--quiet", "--python", sys.executable, str(place)],
            ["uv", "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "-r", str(wanted)],
        ):
            if subprocess.run(command, check=False).returncode:
                raise PipelineError(f"the Bento's environment cannot be made: `{' '.join(command[:3])}` failed")
        return sum(path.lstat().st_size for path in place.rglob("*")) / 1e6


def main() -> None:
    """Measure all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="of each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="in which the servers take turns (%(default)s)")
    arguments = parser.parse_args()
    dataset = datasets.load()
    images = dataset.images[dataset.rows("test")[:64]]
    files = [png(image) for image in images]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        single, many, as_json = folder / "1.form", folder / "64.form", folder / "1.json"
        single.write_bytes(form_of(files[:1]))
        many.write_bytes(form_of(files))
        as_json.write_text(json.dumps({"inputs": {"images": images[:1].tolist()}}))
        starts = []
        for number in range(3):
            with running(*servers.bentoml_serve(f"{scratch}/start-{number}")) as seconds:
                starts.append(seconds)
        measured = measure(folder, single, many, as_json, arguments.seconds, arguments.rounds)
        limits = {
            f"{threads} thread{'s' * (threads > 1)} in {processes} process{'es' * (processes > 1)}": {
                batch: onnx_alone(images, batch, threads, processes, 3) for batch in (1, 2, 4, 8, 16, 32, 64)
            }
            for threads, processes in ((1, CORES), (CORES, 1))
        }
        with atomic(PAGE) as temporary:
            temporary.write_text(page(measured, limits, parts_of_a_request(files), median(starts)))
    print(PAGE.read_text())


@dataclass
class Measured:
    """All measurements of the running servers."""

    single: dict[tuple[str, int], Runs]
    half: Runs
    half_rate: float
    many: dict[str, Runs]
    alone: Runs
    worker_megabytes: float
    environment_megabytes: float


def measure(folder: Path, single: Path, many: Path, as_json: Path, seconds: float, rounds: int) -> Measured:
    """Start all servers and let them take turns."""
    environment = environment_megabytes()  # comes first: it needs the network, which may fail
    loads = {name: (as_json, "application/json") if name == "mlflow models serve" else (single, FORM) for name in PORTS}
    by_load = {(name, concurrency): Runs() for concurrency in CONCURRENCIES for name in PORTS}
    by_many = {name: Runs() for name in PORTS if name != "mlflow models serve"}
    half, alone = Runs(), Runs()
    with (
        running(*servers.bentoml_serve(str(folder / "home"))),
        running(*servers.mlflow_serve(folder / "model")),
        running(*servers.bare_handler(), expected=405),
    ):
        for name in PORTS:
            load(name, *loads[name], 4, 2, Runs())
        for number in range(rounds):
            for (name, concurrency), runs in by_load.items():
                load(name, *loads[name], concurrency, seconds, runs)
            for name, runs in by_many.items():
                load(name, many, FORM, 2 * CORES, seconds, runs)
            print(f"round {number + 1} of {rounds}", flush=True)
        rate = median(by_load["this service", 8].per_second) / 2
        for _ in range(rounds):
            load("this service", single, FORM, 8, seconds, half, rate)
            load("this service", many, FORM, 1, seconds, alone)
        workers = [
            process.info["memory_info"].rss / 1e6
            for process in psutil.process_iter(["cmdline", "memory_info"])
            if "_bentoml_impl.worker.service" in (process.info["cmdline"] or [])
        ]
    return Measured(by_load, half, rate, by_many, alone, max(workers), environment)


def ratio(first: Runs, second: Runs) -> float:
    """How many times as many requests a second the first one answers, the median over the rounds."""
    return median(a / b for a, b in zip(first.per_second, second.per_second, strict=True))


def targets(measured: Measured, share_of_limit: float, start: float) -> list[list[str]]:
    """The rows that compare measurements and goals.

    Args:
        share_of_limit: 64 images a request, as a share of what ONNX Runtime does alone.
        start: seconds from the command to the first answer.
    """
    rows = []
    for concurrency in CONCURRENCIES:
        ours, bare, peer = (
            measured.single[name, concurrency] for name in ("this service", "bare handler", "mlflow models serve")
        )
        rows.append(_target(f"{concurrency} at a time, against mlflow models serve", ratio(ours, peer), 2, "×"))
        rows.append(_target(f"{concurrency} at a time, against the bare handler", ratio(ours, bare), 0.8, "×"))
    tail = measured.half.quantile(0.99) / measured.half.quantile(0.5)
    many = ratio(measured.many["this service"], measured.many["bare handler"])
    return [
        *rows,
        _target(f"p99 / p50 at half load ({measured.half_rate:.0f} requests a second)", tail, 3, "×", most=True),
        _target("64 images a request, against the bare handler", many, 1, "×"),
        _target("64 images a request, against ONNX Runtime alone", share_of_limit, 0.6, "×"),
        _target("start to ready", start, 4, "s", most=True),
        _target("resident memory of a worker, after all this", measured.worker_megabytes, 400, "MB", most=True),
        _target("the Bento", BENTO.stat().st_size / 1e6, 60, "MB", most=True),
        _target("its own environment", measured.environment_megabytes, 600, "MB", most=True),
    ]


def one_image_rows(measured: Measured) -> list[list[str]]:
    """Speed and times of each server, by how many requests were under way."""
    rows = []
    for concurrency in CONCURRENCIES:
        ours = measured.single["this service", concurrency]
        for name in PORTS:
            runs = measured.single[name, concurrency]
            times = "" if name == "this service" else f"{ratio(ours, runs):.2f} ×"
            rows.append(
                [f"{name}, {concurrency} at a time", f"{median(runs.per_second):.0f}", f"{runs.quantile(0.5):.1f}",
                 f"{runs.quantile(0.99):.1f}", times]
            )  # fmt: skip
    return rows


def page(measured: Measured, limits: dict[str, dict[int, float]], parts: dict[str, float], start: float) -> str:
    """The Markdown page."""
    best = max(speed for speeds in limits.values() for speed in speeds.values())
    per_second = {name: median(runs.per_second) * 64 for name, runs in measured.many.items()}
    whole = measured.alone.quantile(0.5)
    batches = [str(batch) for batch in next(iter(limits.values()))]
    speeds = [*per_second.items(), ("ONNX Runtime alone, its best below", best)]
    by_batch = [[name, *(f"{speed:.0f}" for speed in speeds_of.values())] for name, speeds_of in limits.items()]
    shares = [[name, f"{value:.1f}", f"{value / whole:.0%}"] for name, value in parts.items()]
    rest = whole - sum(parts.values())
    shown = [f"{rest:.1f}", f"{rest / whole:.0%}"] if rest > 0.01 * whole else ["less than this can tell", ""]
    shares.append(["all else: HTTP, BentoML, the way to the thread and back", *shown])
    return (
        "# Serving: this service, MLflow's, a bare handler, and the limit\n\n"
        f"{table(['', 'measured', 'asked', 'reached'], targets(measured, per_second['this service'] / best, start))}\n"
        f"The servers run side by side and take turns, {len(measured.half.per_second)} rounds; a ratio is the median "
        "over the rounds. The client is benchmarks/load.py (asyncio, kept connections), on the cores of the servers. "
        f"Each server has {CORES} processes; this one and the bare handler give each request one thread of ONNX "
        "Runtime.\n\n"
        "## One image a request\n\n"
        f"{table(['', 'requests / s', 'p50, ms', 'p99, ms', 'this service is'], one_image_rows(measured))}\n"
        "MLflow's server gets the pixels as JSON: it takes no files. Its uvicorn sends an answer in two packets, head "
        "and body, on sockets without TCP_NODELAY. So a request that waits for another takes some 40 ms longer, for "
        "Linux's delayed acknowledgement; any client sees that. The sockets of the bare handler and of this service "
        "have the option.\n\n"
        "## 64 images a request\n\n"
        f"{table(['', 'images / s'], [[name, f'{speed:.0f}'] for name, speed in speeds])}\n"
        f"Where the {whole:.0f} ms of such a request go, one at a time:\n\n"
        f"{table(['', 'ms', 'share'], shares)}\n"
        "## ONNX Runtime alone: images a second by images in a run\n\n"
        f"{table(['', *batches], by_batch)}\n"
        "An image takes as long in a run of one as in a run of many. So concurrent requests are not merged into "
        "batches, and each has one thread of ONNX Runtime.\n\n"
        + made_by("make bench-serving", torch.device("cpu"), "bentoml", "mlflow", "onnxruntime", "starlette", "uvicorn")
    )


def _target(name: str, value: float, goal: float, unit: str, *, most: bool = False) -> list[str]:
    reached = value <= goal if most else value >= goal
    digits = 2 if unit in {"×", "s"} else 0
    return [
        name,
        f"{value:.{digits}f} {unit}",
        f"{'≤' if most else '≥'} {goal:g} {unit}",
        "yes" if reached else "**no**",
    ]


if __name__ == "__main__":
    run_as_command(main)
