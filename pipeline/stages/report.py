"""Stage `report`: the result folders named on the command line, best or not -> reports/report.html."""

import argparse
from pathlib import Path

from pipeline import car_truck, known_facts, report, results
from pipeline.errors import PipelineError, run_as_command
from pipeline.files import CHAMPION, atomic, read_json
from pipeline.params import load_params


def main() -> None:
    """Tell the lecture with this run's pictures and numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="result folders, models/NAME")
    folders = {folder.name: folder for folder in parser.parse_args().folders}
    board = read_json(Path("reports/leaderboard.json"))
    if missing := [model["name"] for model in board["models"] if model["name"] not in folders]:
        raise PipelineError(
            f"the leaderboard has {', '.join(missing)}: dvc.yaml must name it in the cmd of `report` too"
        )
    ranked = [results.read(folders[model["name"]]) for model in board["models"]]
    dataset = car_truck.load()
    params = load_params()
    # The ablation is made by a command of its own: it is shown where it is of these classes and recipes.
    ablation = read_json(Path("benchmarks/ablation.json"), made_by="make ablation")
    if not known_facts.apply_to(dataset.classes) or ablation["recipes"] != params.cnn.model_dump():
        ablation = None
    champion = read_json(CHAMPION / "card.json")
    page = report.build(ranked, dataset, params, board, champion, ablation)
    path = Path("reports/report.html")
    with atomic(path) as temporary:
        temporary.write_text(page)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, needs no network")


if __name__ == "__main__":
    run_as_command(main)
