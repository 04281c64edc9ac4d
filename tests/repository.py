"""A copy of the repository in which the real `dvc repro` was run, on small synthetic data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from pipeline.base.files import sha256_of
from tests.archives import ARCHIVES, download_params, make_batches, running_server, source
from tests.conftest import ROOT, clean_environment, copy_of_repository

BIN = Path(sys.executable).parent
BATCHES = make_batches(20)
MODELS = ("baseline", "cnn-lecture", "cnn-tuned", "transfer")


def small_params(server) -> dict:
    """The repository's params with small data, short training, one source that refuses and one that is cut off."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sources = []
    for name, format, behaviour in (("first", "python_archive", "refuse"), ("second", "binary_archive", "cut")):
        archive = ARCHIVES[format](BATCHES)
        server.files[f"/{name}"], server.behaviour[f"/{name}"] = archive, behaviour
        sources.append(source(name, format, server.url(f"/{name}"), archive))
    download = download_params(sources, BATCHES, stall_seconds=0.5)
    params["download"] = download.model_dump()
    params["data"] |= {"images_per_class": {"train": 100, "test": 20}, "validation_share": 0.2}
    for recipe in params["cnn"].values():
        recipe["training"] |= {"epochs": 5, "batch_size": 16, "ema_decay": 0.0}
    params["cnn"]["tuned"]["training"] |= {"epochs": 20}  # long enough to be killed in the middle
    params["transfer"] |= {"resolution": 32}
    params["transfer"]["training"] |= {"epochs": 1, "batch_size": 16}
    params["tracking"]["system_metrics_seconds"] = 0.5
    return params


class Repository:
    """A copy of the repository, which is a git checkout of its own; `run` runs commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = clean_environment(PATH=f"{BIN}:{os.environ['PATH']}")
        self.environment.pop("PYTHONPATH", None)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=500, check=False
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def git(self, command: str) -> None:
        """Run a git command under a name and an address of this test."""
        self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", *command.split())

    def change(self, **changes_of) -> None:
        """Change sections of params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, changes in changes_of.items():
            params[name] = params[name] | changes if isinstance(changes, dict) else changes
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    @contextmanager
    def left_as_it_was(self) -> Iterator[None]:
        """Bring back params.yaml, dvc.lock and the results afterwards; DVC's cache has most results."""
        before = {name: (self.folder / name).read_bytes() for name in ("params.yaml", "dvc.lock")}
        before |= {str(path): path.read_bytes() for path in self.not_cached()}
        try:
            yield
        finally:
            for name, content in before.items():
                (self.folder / name).write_bytes(content)
            self.run("dvc", "checkout", "--force")

    def not_cached(self) -> list[Path]:
        """The results that git keeps."""
        kept = ("reports/metrics/*.json", "reports/leaderboard.*", "reports/results.json")
        return [path for pattern in kept for path in self.folder.glob(pattern)]

    def digests(self) -> dict[str, str]:
        """Every result file and its digest."""
        files = [
            path for top in ("data", "models", "reports") for path in (self.folder / top).rglob("*") if path.is_file()
        ]
        return {str(path.relative_to(self.folder)): sha256_of(path) for path in files}

    def json(self, path: str):
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A repository after its first `dvc repro`; a test that changes it must change it back.

    It is made once, by whoever needs it first; each module of tests gets a copy.
    """
    workers_share = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        workers_share = workers_share.parent
    original, output = workers_share / "reproduced", workers_share / "reproduced.txt"
    with FileLock(workers_share / "reproduced.lock"):
        if not output.exists():
            shutil.rmtree(original, ignore_errors=True)
            output.write_text(_reproduce(Repository(copy_of_repository(original))))
    repository = Repository(tmp_path_factory.mktemp("copy") / "repository")
    shutil.copytree(original, repository.folder, symlinks=True)
    repository.output = output.read_text()
    repository.run("python", "-m", "pipeline.stages.sync")  # MLflow's paths follow the folder
    return repository


def _reproduce(repository: Repository) -> str:
    """Run the first `dvc repro` on small data; returns what it printed."""
    for leftover in ("dvc.lock", "models", "reports"):
        path = repository.folder / leftover
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    with running_server() as server:
        params = small_params(server)
        (repository.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        for command in ("init -q", "add -A", "commit -qm first"):
            repository.git(command)
        return repository.run("dvc", "repro").stdout
