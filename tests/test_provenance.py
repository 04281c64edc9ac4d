from __future__ import annotations

import subprocess

import pytest

from pipeline.base.provenance import CodeVersion, code_version


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(in_tmp):
    (in_tmp / "pipeline").mkdir()
    for name in ("pipeline/code.py", "params.yaml", "dvc.lock", "README.md"):
        (in_tmp / name).write_text("one")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    return in_tmp


def test_a_clean_checkout_is_its_commit(checkout):
    assert code_version() == CodeVersion(git("rev-parse", "HEAD"), changed=False)


@pytest.mark.parametrize("name", ["pipeline/code.py", "params.yaml", "pipeline/new.py"])
def test_changed_or_new_code_or_params_count(checkout, name):
    (checkout / name).write_text("two")
    assert code_version().changed is True


@pytest.mark.parametrize("name", ["dvc.lock", "README.md", "reports/metrics/x.json"])
def test_what_makes_no_result_does_not_count(checkout, name):
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("two")
    assert code_version().changed is False


def test_another_projects_checkout_around_this_folder_is_not_ours(checkout, monkeypatch):
    (checkout / "unpacked").mkdir()
    monkeypatch.chdir(checkout / "unpacked")
    assert code_version() == CodeVersion(None, None)


def test_outside_a_checkout_the_version_is_unknown(in_tmp):
    assert code_version() == CodeVersion(None, None)
