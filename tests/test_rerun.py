"""DVC knows what changes numbers. The tests touch each file of the pipeline, and compare the stages that DVC then names
with the table below.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.base.errors import PipelineError
from pipeline.learning.key import COMPUTING, locked_versions
from tests.conftest import ROOT
from tests.repository import reproduced

pytestmark = pytest.mark.slow
__all__ = ["reproduced"]

LEARN = {"baseline", "cnn@lecture", "cnn@tuned", "transfer"}
SHOW = {"draw", "report"}
NETWORKS = {"check", "draw", "package", "report"}  # the stages that build a network from its card
TABLE = {
    "approaches/__init__.py": NETWORKS,
    "approaches/baseline.py": {"baseline"} | NETWORKS,
    "approaches/cnn.py": {"cnn@lecture", "cnn@tuned"} | NETWORKS,
    "approaches/transfer/": {"transfer"} | NETWORKS,
    "base/params.py": {"check"},
    "base/": set(),
    "commands/": set(),
    "data/cifar10.py": {"download"},
    "data/dataset.py": {"extract"} | LEARN,
    "data/extract.py": {"extract"},
    "data/fetch.py": {"download"},
    "data/records.py": {"download", "extract"},
    "data/__init__.py": set(),
    "learning/card.py": LEARN | NETWORKS | {"evaluate", "compare"},
    "learning/classifier.py": LEARN | NETWORKS,
    "learning/devices.py": LEARN | {"check"},
    "learning/key.py": LEARN | {"check"},
    "learning/params.py": LEARN | {"check"},
    "learning/": LEARN,
    "packaging/": {"package"},
    "pictures/": SHOW,
    "report/": {"report"},
    "results/known_facts.py": {"compare", "package", "report"},
    "results/metrics.py": {"evaluate", "draw", "compare", "package", "report"},
    "results/result.py": {"evaluate", "draw", "compare", "package", "report"},
    "results/": {"compare", "report"},
    "stages/__init__.py": set(),
    "stages/train.py": set(),
    "stages/sync.py": set(),
    "tracking/": set(),
    "__init__.py": set(),
}
"""The stages that a changed file, or a changed file of a folder, runs again. The longest name that fits counts. A file
of stages/ that is not listed here runs its own stage again."""


def expected(name: str) -> set[str]:
    entry = next((TABLE[key] for key in sorted(TABLE, key=len, reverse=True) if name.startswith(key)), None)
    return {Path(name).stem} if entry is None and name.startswith("stages/") else entry


def named_by_status(repository) -> set[str]:
    """The stages that `dvc status` names, without `sync`, which it always names."""
    with Repo(str(repository.folder)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()} - {"sync"}


FILES = sorted(
    path.relative_to(ROOT / "pipeline").as_posix()
    for path in (ROOT / "pipeline").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)


def test_the_table_has_every_file_and_nothing_else():
    assert all(expected(name) is not None for name in FILES)
    assert all(any(name.startswith(key) for name in FILES) for key in TABLE)


def test_each_file_runs_again_what_it_can_change_and_nothing_else(reproduced):
    assert named_by_status(reproduced) == set()
    wrong = {}
    for name in FILES:
        path = reproduced.folder / "pipeline" / name
        content = path.read_text()
        path.write_text(content + ("\n# touched\n" if path.suffix == ".py" else "\ntouched\n"))
        if (named := named_by_status(reproduced)) != expected(name):
            wrong[name] = named
        path.write_text(content)
    assert not wrong
    assert named_by_status(reproduced) == set()


def test_a_new_version_of_a_library_trains_again_only_if_it_computes(reproduced):
    lock = reproduced.folder / "requirements.lock"
    content, named = lock.read_text(), {}
    with reproduced.left_as_it_was():
        try:
            for package in ("torch", "numpy", "mlflow", "bentoml"):  # numpy has a version for each Python
                lock.write_text(re.sub(rf"^{package}==\S+", f"{package}==999.0", content, flags=re.MULTILINE))
                assert lock.read_text() != content
                reproduced.run("dvc", "repro", "check")
                named[package] = named_by_status(reproduced)
        finally:
            lock.write_text(content)
            reproduced.run("dvc", "repro", "check")
    assert named == {"torch": LEARN, "numpy": LEARN, "mlflow": set(), "bentoml": set()}
    assert named_by_status(reproduced) == set()


def test_every_library_that_computes_is_in_the_lock_with_all_its_versions(tmp_path):
    locked = locked_versions(ROOT / "requirements.lock")
    assert locked.keys() == set(COMPUTING)
    assert len(locked["numpy"]) == 2
    (tmp_path / "lock").write_text("numpy==1.0\nscipy-stubs==3.0\n")
    with pytest.raises(PipelineError, match="has no version of scikit-learn, scipy, timm, torch, torchvision"):
        locked_versions(tmp_path / "lock")


def test_changing_one_section_runs_again_only_what_reads_it(reproduced):
    with reproduced.left_as_it_was():
        reproduced.change(transfer={"head_l2": 0.02})
        done = reproduced.run("dvc", "repro")
        assert set(re.findall(r"Running stage '([^']+)'", done.stdout)) == {
            "check", "transfer", "evaluate", "draw", "compare", "package", "report", "sync"
        }  # fmt: skip


def test_another_message_of_the_service_packages_again_and_trains_nothing(reproduced):
    path = reproduced.folder / "serving/refusals.py"
    content = path.read_text()
    path.write_text(content + "# touched\n")
    assert named_by_status(reproduced) == {"package"}
    path.write_text(content)


def test_the_checkpoint_of_a_training_goes_by_the_same_code(reproduced, tmp_path):
    """A half-done training must survive an edit of the report, and must start over after an edit of the loop."""
    copy = tmp_path / "copy"
    shutil.copytree(reproduced.folder / "pipeline", copy / "pipeline")
    shutil.copytree(reproduced.folder / "data/dataset", copy / "data/dataset")
    shutil.copy2(reproduced.folder / "params.yaml", copy)

    def key() -> str:
        script = (
            "import torch; from pipeline import approaches; from pipeline.base.params import load_params; "
            "from pipeline.data.dataset import load; from pipeline.learning.key import training_key; "
            "params = load_params(); model = approaches.model(params, 'cnn', 'tuned'); "
            "print(training_key(model, params, load(), torch.device('cpu')))"
        )
        return reproduced.run("env", "-C", str(copy), "python", "-c", script).stdout

    before = key()
    for name, same in (("report/report.html", True), ("tracking/live.py", True), ("approaches/baseline.py", True),
                       ("learning/loop.py", False), ("approaches/cnn.py", False)):  # fmt: skip
        path = copy / "pipeline" / name
        content = path.read_text()
        path.write_text(content + "\n# touched\n")
        assert (key() == before) is same, name
        path.write_text(content)
