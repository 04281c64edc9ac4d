"""Stage `compare`: all results side by side -> reports/leaderboard.json, .csv and .md."""

from pipeline.base.errors import run_as_command
from pipeline.base.files import REPORTS
from pipeline.data.dataset import load
from pipeline.results import leaderboard
from pipeline.results.result import evaluated


def main() -> None:
    """Rank the models on validation, name the champion, report on test."""
    print(leaderboard.write(leaderboard.build(evaluated(), load()), REPORTS))


if __name__ == "__main__":
    run_as_command(main)
