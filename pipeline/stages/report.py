"""Stage `report`: results, pictures and leaderboard -> reports/report.html, the lecture with this run's numbers."""

from pathlib import Path

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.files import CHAMPION, REPORTS, read_json, write_text
from pipeline.base.params import load_params
from pipeline.data.dataset import load
from pipeline.report import report
from pipeline.results import known_facts
from pipeline.results.result import evaluated


def main() -> None:
    """Write the page from the results that the leaderboard ranks."""
    params, dataset = load_params(), load()
    board = read_json(REPORTS / "leaderboard.json")
    results = {result.name: result for result in evaluated()}
    ranked = [results[model["name"]] for model in board["models"]]
    networks = {result.name: approaches.rebuild(result.card, result.folder) for result in ranked}
    # `make ablation` writes the ablation. The page shows it only if it is about these classes and recipes.
    ablation = read_json(Path("benchmarks/ablation.json"), made_by="make ablation")
    if not known_facts.apply_to(dataset.classes) or ablation["recipes"] != params.approaches.get("cnn"):
        ablation = None
    page = report.build(ranked, networks, dataset, params, board, read_json(CHAMPION / "card.json"), ablation)
    path = REPORTS / "report.html"
    write_text(path, page)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, needs no network")


if __name__ == "__main__":
    run_as_command(main)
