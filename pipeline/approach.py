"""What every approach has in common: load the data, train in a tracked run, measure, draw, leave a result folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pipeline import car_truck, distributed, figures, results, tracking
from pipeline.checkpoints import checkpoint_path
from pipeline.devices import choose_device, keep_freed_memory
from pipeline.errors import PipelineError
from pipeline.evaluation import predict_logits
from pipeline.params import Params
from pipeline.results import Trained
from pipeline.training import Job


def run_approach(
    name: str, title: str, recipe: dict[str, Any], params: Params, train: Callable[[Job], Trained], *, device: str = ""
) -> None:
    """Train by `train` and fill models/`name`.

    Args:
        title: the approach in a few words, for tables and pages.
        recipe: the params it depends on, as they go into the model card and into MLflow.
        device: overrides the param of this name.
    """
    keep_freed_memory()
    dataset = car_truck.load()
    chosen = choose_device(device or params.device, deterministic=params.deterministic)
    recipe = recipe | {"seed": params.seed}
    with distributed.joined(chosen):
        checkpoint = checkpoint_path(
            name, recipe=recipe, dataset=dataset.digest, splits=dataset.split_digest,
            device=chosen.type, deterministic=params.deterministic, processes=distributed.size(),
        )  # fmt: skip
        if distributed.rank() > 0:
            train(Job(dataset, params.seed, chosen, checkpoint))
            return
        if not device:  # an approach that is always on the CPU does not depend on these
            recipe |= {"device": params.device, "processes": distributed.size(), "deterministic": params.deterministic}
        _train_and_record(name, title, recipe, params, train, Job(dataset, params.seed, chosen, checkpoint))


def _train_and_record(
    name: str, title: str, recipe: dict[str, Any], params: Params, train: Callable[[Job], Trained], job: Job
) -> None:
    dataset, chosen, checkpoint = job.dataset, job.device, job.checkpoint
    with tracking.track(name, title, recipe, dataset.digest, dataset.class_names, chosen, params.tracking) as run:
        try:
            trained = train(replace(job, on_epoch=run.log_epoch))
        except torch.OutOfMemoryError as error:
            raise PipelineError(f"{name} does not fit the GPU; lower batch_size or resolution: {error}") from None
        logits = predict_logits(trained.model, dataset.images, chosen)
        result = results.write(name, title, trained, dataset, logits, seed=params.seed, device=chosen, recipe=recipe)
        figures.draw_all(result, trained, dataset)
        run.log_result(result)
    checkpoint.unlink(missing_ok=True)
    print(f"{name}: {result.metrics.summary()}")
