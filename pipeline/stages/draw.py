"""Stage `draw`: weights, filters, response maps and answers of each model -> reports/figures/NAME."""

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.files import FIGURES
from pipeline.data.dataset import load
from pipeline.pictures.figures import draw
from pipeline.results.result import evaluated


def main() -> None:
    """Rebuild each network and draw every picture that it can have."""
    dataset = load()
    for result in evaluated():
        folder = FIGURES / result.name
        draw(result, approaches.rebuild(result.card, result.folder), dataset, folder)
        print(f"{folder}: {len(list(folder.glob('*.png')))} pictures")


if __name__ == "__main__":
    run_as_command(main)
