"""What a change runs again, and how long that takes -> the table of docs/how-it-works.md.

`make bench-rerun`, after `make repro` on committed results. Every change is made in a clone of this repository, which
shares its DVC cache, and `dvc repro` runs there as a user would run it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import made_by, table
from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.files import write_text
from pipeline.learning.devices import choose_device

CLONE = Path(".cache/rerun")
PAGE = Path("docs/how-it-works.md")
START, END = "<!-- `make bench-rerun` writes this table -->\n", "<!-- end of the table -->\n"


@dataclass(frozen=True)
class Change:
    """A change that somebody could make: a name for people, and what it does to a clone of the repository."""

    name: str
    make: Callable[[Path], None]


def edit(name: str, pattern: str, replacement: str) -> Callable[[Path], None]:
    """Replace the first match of a regular expression in a file.

    Raises:
        PipelineError: the file has no such text, so the change would measure nothing.
    """

    def make(folder: Path) -> None:
        path = folder / name
        text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE)
        if not count:
            raise PipelineError(f"{name} has no text {pattern!r}: bring benchmarks/rerun.py up to date")
        write_text(path, text)

    return make


def add_approach(folder: Path) -> None:
    """Do what docs/extending.md says about another approach."""
    guide = (folder / "docs/extending.md").read_text()
    module, section, entry = (
        re.findall(rf"```{language}\n({start}.*?)```", guide, re.DOTALL)[0]
        for language, start in (("python", '"""Approach 4'), ("yaml", "nearest:"), ("yaml", "  nearest:"))
    )
    write_text(folder / "pipeline/approaches/nearest.py", module)
    write_text(folder / "params.yaml", (folder / "params.yaml").read_text() + section)
    edit("dvc.yaml", r"^      - models/transfer\n", "      - models/transfer\n      - models/nearest\n")(folder)
    edit("dvc.yaml", r"^  evaluate:", lambda match: f"{entry}\n{match[0]}")(folder)  # type: ignore[arg-type]


CHANGES = (
    Change("nothing", lambda _: None),
    Change("the title of a chart", edit("pipeline/pictures/charts.py", r"ROC \(", "The ROC (")),
    Change(
        "a line of the report",
        edit("pipeline/report/report.html", r"<h2 id=\"data\">2. The", '<h2 id="data">2. All the'),
    ),
    Change("a message of the service", edit("serving/uploads.py", r"has no file\.", "holds no file.")),
    Change("the level of the intervals", edit("pipeline/results/metrics.py", "CONFIDENCE = 0.95", "CONFIDENCE = 0.9")),
    Change("a version of MLflow", edit("requirements.lock", r"^mlflow==\S+", "mlflow==3.99.0")),
    Change("a new approach (the guide's `nearest`)", add_approach),
    Change("a knob of one recipe", edit("params.yaml", r"(?s)(tuned:.*?ema_decay: )0\.995", r"\g<1>0.99")),
    Change("a version of torch", edit("requirements.lock", r"^torch==\S+", "torch==2.99.0")),
)


def run(*command: str, folder: Path = CLONE) -> str:
    """Run a command in a folder; returns what it prints.

    Raises:
        PipelineError: it failed; the message has the last line that it wrote.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "DVC_ROOT")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = ((done.stderr or done.stdout).strip().splitlines() or ["no message"])[-1]
        raise PipelineError(f"`{' '.join(command)}` failed in {folder}: {last}")
    return done.stdout


def make_clone() -> None:
    """A clone with all results in place, up to date."""
    if run("git", "status", "--porcelain", "--untracked-files=no", folder=Path()):
        raise PipelineError("commit the changes first: the clone that is measured has committed files alone")
    shutil.rmtree(CLONE, ignore_errors=True)
    run("git", "clone", "--quiet", ".", str(CLONE), folder=Path())
    run("dvc", "cache", "dir", "--local", str(Path(".dvc/cache").resolve()))
    run("dvc", "checkout")
    if (stages := stages_of(run("dvc", "repro"))) - {"check", "sync"}:
        raise PipelineError(
            f"the committed results are not up to date ({', '.join(sorted(stages))}): `make repro` first"
        )


def stages_of(output: str) -> set[str]:
    """The stages that `dvc repro` ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def measure(change: Change) -> list[str]:
    """Make a change, reproduce, take it back; returns a line of the table."""
    change.make(CLONE)
    start = time.perf_counter()
    stages = stages_of(run("dvc", "repro"))
    seconds = time.perf_counter() - start
    run("git", "checkout", "--quiet", ".")
    run("git", "clean", "--quiet", "--force", "pipeline")
    run("dvc", "repro")  # back to what was, out of DVC's cache
    order = [name for name in stages_in_order() if name in stages]
    print(f"{change.name}: {', '.join(order)}, {seconds:.1f} s", flush=True)
    return [change.name, ", ".join(f"`{name}`" for name in order), f"{seconds:.0f} s"]


def stages_in_order() -> list[str]:
    """All stages, in an order in which they can run."""
    trainings = ["baseline", "cnn@lecture", "cnn@tuned", "transfer", "nearest"]
    return ["check", "download", "extract", *trainings, "evaluate", "draw", "compare", "package", "report", "sync"]


def main() -> None:
    """Measure every change, and write the table."""
    make_clone()
    origin = made_by("make bench-rerun", choose_device("cpu"), "dvc")  # before anybody edits a file here meanwhile
    rows = [measure(change) for change in CHANGES]
    shutil.rmtree(CLONE)
    measured = f"{table(['change', 'runs again', 'time'], rows)}\n{origin}"
    before, _, rest = PAGE.read_text().partition(START)
    write_text(PAGE, f"{before}{START}\n{measured}\n{END}{rest.partition(END)[2]}")
    print(measured)


if __name__ == "__main__":
    run_as_command(main)
