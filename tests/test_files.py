from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import pytest

from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.files import atomic, read_json, write_json


def test_a_file_appears_only_when_its_block_ends_well(tmp_path):
    path = tmp_path / "folder" / "out.txt"
    with atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt(), ValueError("x")])
def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def write_half():
        with atomic(path) as temporary:
            temporary.write_text("ha")
            raise fault

    with pytest.raises(type(fault)):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.txt"]


def test_a_full_disk_is_a_clear_error_whatever_the_library_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    def write():
        with atomic(tmp_path / "x.npy"):
            raise RuntimeError("unexpected pos 64 vs 0")  # torch's message for a full disk

    with pytest.raises(PipelineError, match=r"x\.npy: the disk is full; free some space and run again"):
        write()


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / ".out.partial.txt").write_text("half")
    with atomic(tmp_path / "out.txt") as temporary:
        temporary.write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.txt"]


def test_json_makes_a_round_trip_and_refuses_what_json_lacks(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ü"]}


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_damaged_json_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PipelineError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (PipelineError("first\nsecond"), 1, "error: first\nerror: second\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_pipeline_error_or_ctrl_c_prints_lines_and_sets_the_exit_code(capsys, fault, code, line):
    def main():
        raise fault

    with pytest.raises(SystemExit) as ended:
        run_as_command(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_as_command(main)
