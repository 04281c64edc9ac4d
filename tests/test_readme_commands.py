"""Every command of the README, run in a copy of the repository on small data; CI runs `make repro` and `make test`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import pytest

from pipeline.commands.served import running
from tests.conftest import ROOT
from tests.repository import Repository, reproduced

pytestmark = pytest.mark.slow
__all__ = ["reproduced"]

RUN_BY_CI = ("make repro", "make test")
SERVERS = {
    "make ui": ("http://127.0.0.1:5000/health", None),
    "make serve": (
        "http://127.0.0.1:3000/readyz",
        "curl -sS -F images=@models/champion/samples/car-1.png http://127.0.0.1:3000/predict",
    ),
}
"""Commands that run until they are stopped: the address of each, and the README's command that sends it a request."""


def commands(document: str) -> list[str]:
    """The lines of a document's shell blocks, without their comments."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_ci_runs_what_is_too_long_for_here():
    for command in RUN_BY_CI:
        assert command in commands("README.md")
        assert re.search(rf"^step {command}$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


@pytest.mark.timeout(1500)  # a set-up, seven small pipelines and two servers
def test_every_command_of_the_readme_works(reproduced, tmp_path):
    repository = Repository(reproduced.folder)
    shutil.copy2(ROOT / "Makefile", repository.folder)
    repository.change(cnn=_with_average(repository))  # the value that the README's `sed` looks for
    repository.run("dvc", "repro")
    for name, value in (("user.name", "test"), ("user.email", "test@example.org")):
        repository.run("git", "config", name, value)
    repository.run("git", "add", "--all")  # a user's clone has the author's results in git already
    # `make repro`, the README's first command, starts with this. From here on the copy's own environment runs.
    _shell(repository, "make setup")
    repository.environment["PATH"] = f"{repository.folder / '.venv' / 'bin'}:{os.environ['PATH']}"
    questions = {question for _, question in SERVERS.values() if question}
    printed = {}
    for command in commands("README.md"):
        if command in RUN_BY_CI or command in questions:
            continue
        if command in SERVERS:
            printed[command] = _serve(repository, command)
            continue
        # A folder of this test replaces the share. The README's server does not exist: the command must work without.
        printed[command] = _shell(repository, command.replace("/mnt/share/car-or-truck", str(tmp_path / "share")))
    assert "cnn-lecture" in printed["dvc metrics diff"], "the changed param changed a model"
    assert "all verified" in printed["make verify"]
    assert '"label"' in printed["make serve"]
    assert list((tmp_path / "share").rglob("*")), "`dvc push` filled it"
    clone = Repository(tmp_path / "clone")
    repository.run("git", "clone", "-q", str(repository.folder), str(clone.folder))
    clone.environment["PATH"] = repository.environment["PATH"]  # replaces its own `make setup`
    clone.run("dvc", "pull")
    synced = clone.run("python", "-m", "pipeline.stages.sync").stdout  # `make ui` starts with this
    assert "its run was missing; rebuilt" in synced
    assert clone.digests().items() >= repository.digests().items()


def _with_average(repository: Repository) -> dict:
    import yaml

    params = yaml.safe_load((repository.folder / "params.yaml").read_text())["cnn"]
    params["lecture"]["training"]["ema_decay"] = 0.995
    return params


def _shell(repository: Repository, command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=repository.folder, env=repository.environment, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def _serve(repository: Repository, command: str) -> str:
    address, question = SERVERS[command]
    with running(shlex.split(command), address, repository.environment, folder=repository.folder):
        return _shell(repository, question) if question else ""
