from __future__ import annotations

import subprocess

import pytest

from tests.conftest import ROOT
from tools.readme import with_leaderboard


def test_the_readmes_leaderboard_is_the_committed_one():
    done = subprocess.run(["git", "show", "HEAD:reports/leaderboard.md"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git checkout with a leaderboard here")
    readme = (ROOT / "README.md").read_text()
    assert readme == with_leaderboard(readme, done.stdout), "run `make readme` and commit"
