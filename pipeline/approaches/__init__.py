"""The approaches, one module each: its network, the type of its params, its training.

Each module defines `APPROACH` (`learning.approach.Approach`), and other rooms use the module through it. A module may
use `learning`, `data` and `base`. Code that measures, draws or publishes must not be in it, because every change of the
module trains the approach again.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.base.errors import PipelineError
from pipeline.base.files import sha256_of
from pipeline.base.params import Params, approach_names, problems
from pipeline.learning.approach import Approach, Model
from pipeline.learning.card import WEIGHTS, ModelCard
from pipeline.learning.classifier import Classifier


def find(module: str) -> Approach:
    """The approach of pipeline/approaches/`module`.

    Raises:
        PipelineError: the module does not exist.
    """
    if module not in approach_names():
        raise PipelineError(f"unknown approach {module!r}; pipeline/approaches has {', '.join(approach_names())}")
    approach: Approach = importlib.import_module(f"pipeline.approaches.{module}").APPROACH
    return approach


def models(params: Params) -> dict[str, Model]:
    """Every model that params.yaml and the approaches describe, by name.

    Raises:
        PipelineError: one line for each problem in the sections of the approaches.
    """
    every, faults = list[Model](), list[str]()
    for module in approach_names():
        recipes = list(_recipes(params, module)) if find(module).recipes else [""]
        for recipe in recipes:
            try:
                every.append(model(params, module, recipe))
            except PipelineError as fault:
                faults.append(str(fault))
    if faults:
        raise PipelineError("\n".join(faults))
    return {each.name: each for each in every}


def model(params: Params, module: str, recipe: str = "") -> Model:
    """The model that an approach makes with its params, or with one recipe of them.

    Raises:
        PipelineError: the approach or the recipe does not exist, or its params are wrong; one line per problem.
    """
    approach = find(module)
    recipes = list(_recipes(params, module)) if approach.recipes else []
    if recipe not in (recipes or [""]):
        choice = f"has the recipes {', '.join(recipes)}" if recipes else "has no recipes"
        raise PipelineError(f"unknown recipe {recipe!r}: the approach {module} {choice}")
    section = f"{module}.{recipe}" if recipe else module
    document = _recipes(params, module)[recipe] if recipe else params.approaches.get(module, {})
    try:
        own = approach.params.model_validate(document)
    except ValidationError as error:
        raise PipelineError(problems(error, section)) from None
    described = Model(section.replace(".", "-"), module, section, approach, own)
    _check_batches(described, params)
    return described


def _recipes(params: Params, module: str) -> dict[str, Any]:
    recipes = params.approaches.get(module)
    if not isinstance(recipes, dict) or not recipes:
        raise PipelineError(f"params.yaml: {module} must hold at least one recipe by name")
    return recipes


def _check_batches(model: Model, params: Params) -> None:
    if (training := model.training) is None:
        return
    images, start = params.data.training_images, f"params.yaml: {model.section}.training.batch_size"
    if training.batch_size > images:
        raise PipelineError(f"{start} = {training.batch_size}: larger than the {images:,} training images")
    if training.batch_size % params.processes:
        raise PipelineError(
            f"{start} = {training.batch_size}: cannot be shared out to {params.processes} processes evenly"
        )


def rebuild(card: ModelCard, folder: Path) -> Classifier:
    """Build the network of a result folder from its card and its weights, in evaluation mode.

    Raises:
        PipelineError: the weights are missing, or are not those of the card.
    """
    path = folder / WEIGHTS
    if not path.exists() or sha256_of(path) != card.weights_sha256:
        raise PipelineError(f"{path} is missing, or its SHA-256 is not that of card.json: run `dvc repro`")
    network = find(card.approach).network(**card.architecture)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise PipelineError(f"{path} does not fit its card.json: {str(error).splitlines()[0]}") from None
    return network.eval()
