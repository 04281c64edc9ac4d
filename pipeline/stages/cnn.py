"""Stage `cnn`: approach 2, the lecture's convolutional network under one recipe -> models/cnn-RECIPE."""

import argparse

import torch

from pipeline import distributed
from pipeline.approach import run_approach
from pipeline.errors import run_as_command
from pipeline.models import LectureCnn
from pipeline.params import CnnParams, CnnRecipes, load_params
from pipeline.results import Trained
from pipeline.training import Job, fit


def train(recipe: CnnParams, job: Job) -> Trained:
    """Start from Keras's random weights and learn filters and classifier together."""
    torch.manual_seed(job.seed)
    model = LectureCnn(recipe.color, mirror=recipe.mirror).standardise_by(job.images("train"))
    first_filters = model.first_filters().detach().clone()
    history = fit(model, recipe.training, job)
    return Trained(model, sum(epoch.seconds for epoch in history), history, first_filters=first_filters)


def main() -> None:
    """Train the network of the slides under `cnn.RECIPE` of params.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=list(CnnRecipes.model_fields), help="a section of `cnn` in params.yaml")
    name = parser.parse_args().recipe
    params = load_params()
    if distributed.hand_over(params.processes):
        return
    recipe: CnnParams = getattr(params.cnn, name)
    title = f"The lecture's CNN, {name} recipe ({recipe.color})"
    run_approach(f"cnn-{name}", title, recipe.model_dump(), params, lambda job: train(recipe, job))


if __name__ == "__main__":
    run_as_command(main)
