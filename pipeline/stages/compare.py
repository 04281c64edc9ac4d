"""Stage `compare`: the result folders named on the command line -> reports/leaderboard.json, .csv and .md."""

import argparse
from pathlib import Path

from pipeline import car_truck, leaderboard, results
from pipeline.errors import run_as_command


def main() -> None:
    """Rank the models on validation, name the champion, report on test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="result folders, models/NAME")
    folders = parser.parse_args().folders
    document = leaderboard.build([results.read(folder) for folder in folders], car_truck.load())
    print(leaderboard.write(document, Path("reports")))


if __name__ == "__main__":
    run_as_command(main)
