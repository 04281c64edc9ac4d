"""What docs/extending.md tells a user to do, done as it is written there, on small data."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import requests
import yaml

from tests.archives import ARCHIVES, running_server, source
from tests.conftest import ROOT
from tests.repository import BATCHES, reproduced
from tests.serving import Serving

pytestmark = pytest.mark.slow
__all__ = ["reproduced"]


def test_another_pair_of_classes_by_params_alone(reproduced):
    with reproduced.left_as_it_was():
        reproduced.run("dvc", "exp", "run", "-S", "data.classes=[cat,dog]")
        assert reproduced.json("models/champion/card.json")["class_names"] == ["cat", "dog"]
        page = (reproduced.folder / "reports/report.html").read_text()
        assert "<title>Cat or dog?" in page
        assert "truck" not in page
        assert "The lecture" not in (reproduced.folder / "reports/leaderboard.md").read_text()
        with Serving(reproduced.folder, reproduced.environment) as url:
            card = requests.get(f"{url}/model").json()
            assert card["individual_people_accuracy"] is None
            described = requests.get(f"{url}/openapi.json")
            assert described.json()["info"]["title"] == "Cat or dog?"
            for text in (described.text, requests.get(f"{url}/docs").text, requests.get(f"{url}/ui/").text):
                assert not re.search(r"\b(car|truck)s?\b", text, re.IGNORECASE)
            assert requests.get(f"{url}/ui/samples").json()[0] == "cat-1.png"
            sample = requests.get(f"{url}/ui/samples/dog-1.png").content
            answer = requests.post(f"{url}/predict", files=[("images", ("d.png", sample))]).json()
            assert set(answer["predictions"][0]["probabilities"]) == {"cat", "dog"}


def test_another_backbone_is_a_package_and_a_param(reproduced, tmp_path):
    text = (ROOT / "docs/extending.md").read_text()
    package, command = re.search(r"```bash\nuv pip install (\S+)\n(dvc exp run .*)\n```", text).groups()
    reproduced.run("uv", "pip", "install", "-q", "--python", sys.executable, "--target", str(tmp_path), package)
    reproduced.environment["PYTHONPATH"] = str(tmp_path)  # the environment of these tests stays as it is
    with reproduced.left_as_it_was():
        reproduced.run(*command.split())
        card = reproduced.json("models/transfer/card.json")
        assert card["architecture"]["backbone"] == "efficientnet_lite1"
        metrics = reproduced.json("reports/metrics/transfer.json")
        assert metrics["parameters"] > 4_000_000
        assert metrics["frozen_test_accuracy"] > 0.6, "ImageNet's features, not random ones, on synthetic images"
    del reproduced.environment["PYTHONPATH"]


def test_another_approach_is_a_module_a_section_and_an_entry_and_trains_no_other(reproduced):
    text = (ROOT / "docs/extending.md").read_text()
    module = re.search(r'```python\n(""""?Approach 4.*?)```', text, re.DOTALL)[1]
    section, entry = (
        re.search(rf"```yaml\n({start}.*?)```", text, re.DOTALL)[1] for start in ("nearest:", "  nearest:")
    )
    with reproduced.left_as_it_was():
        dvc_yaml = reproduced.folder / "dvc.yaml"
        before = dvc_yaml.read_text()
        try:
            (reproduced.folder / "pipeline/approaches/nearest.py").write_text(module)
            with (reproduced.folder / "params.yaml").open("a") as params:
                params.write(section)
            listed = before.replace("      - models/transfer\n", "      - models/transfer\n      - models/nearest\n", 1)
            dvc_yaml.write_text(listed.replace("  evaluate:", f"{entry}\n  evaluate:", 1))
            changed = reproduced.run("git", "status", "--porcelain", "--", "pipeline", "*.yaml").stdout.splitlines()
            assert len(changed) == 3, changed
            output = reproduced.run("dvc", "repro").stdout
            ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
            assert ran == {"check", "nearest", "evaluate", "draw", "compare", "package", "report", "sync"}
            board = reproduced.json("reports/leaderboard.json")
            assert "nearest" in {model["name"] for model in board["models"]}
            assert (reproduced.folder / "reports/figures/nearest/confusion.png").exists()
            assert "nearest," in (reproduced.folder / "reports/confusion.csv").read_text()
            report = (reproduced.folder / "reports/report.html").read_text()
            assert "Approach 3: nearest" in report, "a chapter of its own"
            assert "nearest: <code>" in report
            assert "nearest: its run got the rest of the result" in output
        finally:
            dvc_yaml.write_text(before)
            (reproduced.folder / "pipeline/approaches/nearest.py").unlink()
            shutil.rmtree(reproduced.folder / "models/nearest", ignore_errors=True)
            (reproduced.folder / "reports/metrics/nearest.json").unlink(missing_ok=True)


def test_another_source_is_an_entry_in_params(reproduced, tmp_path):
    """The guide's entry goes first, as it says; it gets the size and digest of a small archive on a local server."""
    text = (ROOT / "docs/extending.md").read_text()
    (entry,) = yaml.safe_load(re.search(r"```yaml\n(    - name: our-mirror.*?)```", text, re.DOTALL)[1])
    command = re.search(r"`(rm -r data/cifar10 .*?)`", text)[1]
    with running_server() as server, reproduced.left_as_it_was():
        archive = ARCHIVES[entry["format"]](BATCHES)
        server.files["/mirror"] = archive
        entry |= source(entry["name"], entry["format"], server.url("/mirror"), archive)
        sources = yaml.safe_load((reproduced.folder / "params.yaml").read_text())["download"]["sources"]
        reproduced.change(download={"sources": [entry, *sources]})
        done = reproduced.run("bash", "-c", command)
        assert "our-mirror" in done.stdout
        assert "data/cifar10" not in reproduced.run("dvc", "status", "download").stdout
