"""Stage `package`: the champion of reports/leaderboard.json -> models/champion and models/car_or_truck.bento."""

from pathlib import Path

from pipeline import car_truck, results
from pipeline.bento import build_bento
from pipeline.errors import run_as_command
from pipeline.export import package
from pipeline.files import BENTO, CHAMPION, read_json
from pipeline.params import load_params


def main() -> None:
    """Export the champion, prove that it answers as the trained model does, and build a Bento from it."""
    name = read_json(Path("reports/leaderboard.json"))["champion"]
    result = results.read(results.MODELS / name)
    card = package(result, car_truck.load(), load_params().package.tolerance, CHAMPION)
    difference = card["parity"]["largest_difference"]
    print(f"{name}: ONNX Runtime gives every label PyTorch gives; probabilities differ by at most {difference:.1g}")
    build_bento(BENTO)
    print(f"{BENTO}: {BENTO.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_as_command(main)
