"""Two processes under the real torchrun train what one process trains."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline import approaches
from pipeline.base.errors import PipelineError
from pipeline.data.dataset import save
from pipeline.learning.devices import choose_device
from pipeline.results.metrics import measure
from pipeline.results.result import read
from tests.conftest import ROOT, clean_environment

SCRIPT = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from pipeline.approaches.cnn import LectureCnn
from pipeline.base.errors import run_as_command
from pipeline.data.dataset import load
from pipeline.learning import loop, processes
from pipeline.learning.approach import Job
from pipeline.learning.devices import Precision
from pipeline.learning.loop import fit
from pipeline.learning.params import TrainingParams

loop.choose_precision = lambda _: Precision(torch.float32, "", "a test")
settings = {settings}

def main():
    torch.set_num_threads(1)
    with processes.joined(torch.device("cpu")):
        torch.manual_seed(processes.rank())  # all processes must take the leader's weights
        model = LectureCnn("rgb")
        model.dropout.p = 0.0  # each process draws its own
        fit(model, TrainingParams(**settings), Job(load(), 0, torch.device("cpu"), Path("checkpoint.pt")))
        weights = {{name: tensor.contiguous() for name, tensor in model.state_dict().items()}}
        save_file(weights, f"weights-{{processes.size()}}-{{processes.rank()}}.safetensors")

run_as_command(main)
"""
SETTINGS = {
    "epochs": 2, "batch_size": 16, "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05,
    "schedule": "one_cycle", "flip": True, "shift": 3, "cutout": 8, "label_smoothing": 0.1, "ema_decay": 0.9,
}  # fmt: skip


@pytest.fixture
def folder(dataset, in_tmp):
    save(dataset)
    return in_tmp


def run(folder: Path, *command: str, **settings) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(SCRIPT.format(settings=SETTINGS | settings))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, *command, "train.py")
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_processes_end_with_the_weights_of_one_and_resume_together(folder):
    alone = run(folder)
    assert alone.returncode == 0, alone.stderr
    (folder / "checkpoint.pt").unlink()
    together = run(folder, *TORCHRUN)
    assert together.returncode == 0, together.stderr
    assert "in 2 processes" in together.stdout
    assert together.stdout.count("epoch   2/2") == 1, "the leader alone prints"
    one, first, second = (load_file(folder / f"weights-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, weights in one.items():
        assert first[name].equal(second[name])
        # Two processes add in another order: nearly all weights are equal to six digits. Where a gradient is almost 0,
        # AdamW turns its rounding error into a step of up to the learning rate, 1e-3, on some processors.
        difference = (first[name] - weights).abs()
        assert difference.mean() < 1e-5, name
        assert difference.max() < 2e-3, name
    again = run(folder, *TORCHRUN)
    assert again.stdout.count("going on after epoch 2") == 1
    resumed = load_file(folder / "weights-2-1.safetensors")
    assert all(resumed[name].equal(weights) for name, weights in first.items())


def test_transfer_learning_in_two_processes_leaves_one_result(folder, document):
    document["transfer"]["resolution"] = 32
    document["transfer"]["training"] |= {"epochs": 1, "batch_size": 16}
    (folder / "params.yaml").write_text(yaml.safe_dump(document | {"device": "cpu"}))
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "pipeline.stages.train", "transfer"],
        cwd=folder, capture_output=True, text=True,
        env=clean_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"), timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fitted a new head on frozen layers") == 1, "the leader alone fits it"
    assert done.stdout.count("epoch   1/1") == 1
    result = read(folder / "models/transfer")
    assert measure(result).frozen_test_accuracy is not None
    assert result.card.recipe["processes"] == 2
    approaches.rebuild(result.card, result.folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)


def test_more_processes_than_gpus_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PipelineError, match="processes = 2: each needs a GPU of its own and there are 1"):
        choose_device("auto", processes=2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun by hand
    with pytest.raises(PipelineError, match="allowed: at most that many, or device: cpu"):
        choose_device("cuda")
    assert choose_device("cpu", processes=2) == torch.device("cpu")


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_in_the_middle_of_an_epoch_prints_no_traceback_and_leaves_no_process(folder, document, processes):
    """The signal goes to all processes of the command, as a terminal sends it."""
    document["cnn"]["tuned"]["training"] |= {"epochs": 10_000, "batch_size": 16}
    document |= {"device": "cpu", "processes": processes}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.stages.train", "cnn", "tuned"],
        cwd=folder, start_new_session=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    family = []
    try:
        assert any(line.startswith("epoch   3") for line in process.stdout)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= (processes if processes > 1 else 0)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in errors, errors
        assert "interrupted" in errors
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
    finally:
        for one in [process, *(member for member in family if member.is_running())]:
            one.kill()


def test_a_batch_that_cannot_be_shared_out_is_a_clear_error(folder):
    done = run(folder, *TORCHRUN, batch_size=15)
    assert done.returncode != 0
    assert "error: batch_size = 15 cannot be shared out to 2 processes evenly" in done.stderr
