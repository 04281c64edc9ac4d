"""Stage `package`: the champion of reports/leaderboard.json -> models/champion and models/champion.bento."""

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.files import BENTO, CHAMPION, MODELS, REPORTS, read_json
from pipeline.base.params import load_params
from pipeline.data.dataset import load
from pipeline.packaging.bento import build_bento
from pipeline.packaging.export import package
from pipeline.results.result import read


def main() -> None:
    """Export the champion, prove that it gives the trained model's answers, and build a Bento from it."""
    name = read_json(REPORTS / "leaderboard.json")["champion"]
    result = read(MODELS / name)
    network = approaches.rebuild(result.card, result.folder)
    card = package(result, network, load(), load_params().package.tolerance, CHAMPION)
    difference = card["parity"]["largest_difference"]
    print(f"{name}: ONNX Runtime gives the same labels as PyTorch; probabilities differ by at most {difference:.1g}")
    build_bento(BENTO)
    print(f"{BENTO}: {BENTO.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_as_command(main)
