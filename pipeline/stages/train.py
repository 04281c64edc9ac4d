"""Stages `baseline`, `cnn`, `transfer`: train an approach of pipeline/approaches on data/dataset -> models/NAME."""

import argparse

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.params import approach_names, load_params
from pipeline.learning import processes
from pipeline.learning.learn import learn
from pipeline.tracking.live import watch_by


def main() -> None:
    """Train one model while MLflow watches, in as many processes as `processes` in params.yaml says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("approach", choices=approach_names(), help="a module of pipeline/approaches")
    parser.add_argument("recipe", nargs="?", default="", help="a recipe in the approach's section of params.yaml")
    chosen = parser.parse_args()
    params = load_params()
    model = approaches.model(params, chosen.approach, chosen.recipe)
    if not processes.hand_over(params.processes):
        learn(model, params, watch_by(params.tracking))


if __name__ == "__main__":
    run_as_command(main)
