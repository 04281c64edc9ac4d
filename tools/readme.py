"""Copy reports/leaderboard.md into README.md, between two marks, so that nobody types a figure there by hand."""

from pathlib import Path

from pipeline.base.errors import PipelineError, run_as_command

LEADERBOARD = Path("reports/leaderboard.md")
START, END = (
    "<!-- leaderboard: `make readme` copies it from reports/leaderboard.md -->\n",
    "<!-- end of leaderboard -->",
)


def with_leaderboard(readme: str, leaderboard: str) -> str:
    """`readme` with `leaderboard` between its marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{leaderboard.strip()}\n\n{END}{after}"


def main() -> None:
    """Bring README.md up to date."""
    if not LEADERBOARD.exists():
        raise PipelineError(f"{LEADERBOARD} is missing: `dvc repro` makes it")
    path = Path("README.md")
    path.write_text(with_leaderboard(path.read_text(), LEADERBOARD.read_text()))


if __name__ == "__main__":
    run_as_command(main)
