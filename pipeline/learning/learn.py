"""One training from the dataset to models/NAME: train the model, classify every image, write the result folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from pipeline.base.errors import PipelineError
from pipeline.base.files import MODELS, atomic, sha256_of, write_json
from pipeline.base.params import Params
from pipeline.data.dataset import Dataset, load
from pipeline.learning import card, processes
from pipeline.learning.approach import Job, Model, Trained
from pipeline.learning.card import Epoch, ModelCard
from pipeline.learning.checkpoints import checkpoint_path
from pipeline.learning.devices import choose_device, describe_device, keep_freed_memory
from pipeline.learning.key import COMPUTING, precision_of, training_key
from pipeline.learning.predict import predict_logits


@dataclass(frozen=True)
class Beginning:
    """The facts about a training before its first epoch.

    Attributes:
        folder: the result folder, which is written at the end.
        recipe: the params that the training depends on, nested.
        hardware, precision: the same text as in the card.
    """

    name: str
    title: str
    folder: Path
    recipe: dict[str, Any]
    dataset: Dataset
    device: torch.device
    hardware: str
    precision: str


Watch = Callable[[Beginning], AbstractContextManager[Callable[[Epoch], None]]]
"""A function that watches a training. It gets the facts before the first epoch. It returns a context manager, which
sees the errors of the training and yields a function that gets each epoch."""


def learn(model: Model, params: Params, watch: Watch) -> None:
    """Train `model` and fill its result folder. With several processes, only the leader writes and is watched."""
    keep_freed_memory()
    dataset = load()
    device = choose_device(model.approach.device or params.device, deterministic=params.deterministic)
    with processes.joined(device):
        checkpoint = checkpoint_path(model.name, training_key(model, params, dataset, device))
        job = Job(dataset, params.seed, device, checkpoint)
        if processes.rank() > 0:
            model.approach.train(model.params, job)
            return
        beginning = Beginning(
            model.name, model.approach.title(model.params), MODELS / model.name,
            model.recipe(params, processes.size()), dataset, device,
            describe_device(device), precision_of(model, device),
        )  # fmt: skip
        with watch(beginning) as on_epoch:
            try:
                trained = model.approach.train(model.params, replace(job, on_epoch=on_epoch))
            except torch.OutOfMemoryError as error:
                raise PipelineError(
                    f"{model.name} does not fit the GPU; lower batch_size or resolution: {error}"
                ) from None
            write(beginning, model.module, trained, params.seed)
    checkpoint.unlink(missing_ok=True)
    print(f"{model.name}: trained in {trained.seconds:.1f} s -> {beginning.folder}")


def write(beginning: Beginning, approach: str, trained: Trained, seed: int) -> None:
    """Write a result folder except run.json, which the watcher adds at the end."""
    folder, network, dataset = beginning.folder, trained.model, beginning.dataset
    (folder / card.RUN).unlink(missing_ok=True)  # it describes an older result
    for optional in (card.FROZEN_PREDICTIONS, card.FIRST_FILTERS):
        (folder / optional).unlink(missing_ok=True)
    _write_tensors(folder / card.WEIGHTS, network.state_dict())
    if trained.first_filters is not None:
        _write_tensors(folder / card.FIRST_FILTERS, {"first_filters": trained.first_filters})
    _write_table(
        folder / card.PREDICTIONS, _answers(dataset, predict_logits(network, dataset.images, beginning.device))
    )
    if trained.frozen_logits:
        parts = [_answers(dataset, logits, dataset.rows(split)) for split, logits in trained.frozen_logits.items()]
        _write_table(folder / card.FROZEN_PREDICTIONS, pd.concat(parts, ignore_index=True))
    with atomic(folder / card.HISTORY) as temporary:
        epochs = pd.DataFrame([asdict(epoch) for epoch in trained.history], columns=card.HISTORY_COLUMNS)
        epochs.to_csv(temporary, index=False)
    described = ModelCard(
        name=beginning.name,
        title=beginning.title,
        approach=approach,
        architecture=network.architecture,
        classes=dataset.classes,
        class_names=dataset.class_names,
        dataset_digest=dataset.digest,
        seed=seed,
        recipe=beginning.recipe,
        device=beginning.device.type,
        hardware=beginning.hardware,
        precision=beginning.precision,
        parameters=sum(weight.numel() for weight in network.parameters()),
        seconds=round(trained.seconds, 1),
        weights_sha256=sha256_of(folder / card.WEIGHTS),
        pretrained_sha256=trained.pretrained_sha256,
        versions={package: version(package) for package in (*COMPUTING, "pandas")},
    )
    write_json(folder / card.CARD, described.model_dump())


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with atomic(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def _answers(dataset: Dataset, logits: NDArray[Any], rows: NDArray[Any] | slice = slice(None)) -> pd.DataFrame:
    """One row per image: id, split, label, probability of label 1."""
    probabilities = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return dataset.manifest.iloc[rows][["id", "split", "label"]].assign(probability=probabilities)
