"""The description of an approach, and the input and the output of its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.params import Params, Section
from pipeline.data.dataset import Dataset, Split
from pipeline.learning.card import Epoch
from pipeline.learning.classifier import Classifier
from pipeline.learning.params import TrainingParams


@dataclass(frozen=True)
class Job:
    """The input of a training, beside its params.

    Attributes:
        checkpoint: the file with the state after the last epoch. If it exists, the training goes on from it.
        on_epoch: called with each epoch when it ends, and at the start with every epoch of the checkpoint.
    """

    dataset: Dataset
    seed: int
    device: torch.device
    checkpoint: Path
    on_epoch: Callable[[Epoch], None] = lambda _: None

    def images(self, split: Split) -> Tensor:
        """Images uint8 `[n, 32, 32, 3]` of a split, on the CPU."""
        return torch.from_numpy(self.dataset.images[self.dataset.rows(split)])

    def labels(self, split: Split) -> Tensor:
        """Labels float32 `[n]`, 0 or 1, of a split, on the CPU."""
        return torch.from_numpy(self.dataset.labels[self.dataset.rows(split)]).float()


@dataclass(frozen=True)
class Trained:
    """The output of a training.

    Attributes:
        seconds: the duration of the training.
        first_filters: the weights `[filters, C, H, W]` of the first convolution before the first epoch.
        frozen_logits: the logits of a head on frozen layers for the images of each split, float32 `[n]`.
        pretrained_sha256: `digest_of_weights` of the pretrained layers; None without pretrained layers.
    """

    model: Classifier
    seconds: float
    history: list[Epoch] = field(default_factory=list)
    first_filters: Tensor | None = None
    frozen_logits: dict[Split, NDArray[Any]] = field(default_factory=dict)
    pretrained_sha256: str | None = None


class NoParams(Section):
    """The params of an approach that has no knobs."""


@dataclass(frozen=True)
class Approach:
    """The description of an approach. Each module of pipeline/approaches defines one, called `APPROACH`.

    Attributes:
        network: builds the network from the architecture in the model's card.
        train: runs one training with these params.
        title: describes the approach with these params in a few words, for tables and pages.
        params: the type of its section in params.yaml.
        recipes: whether its section holds several named recipes of this type; each recipe makes a model.
        device: the device that it always uses; empty if params.yaml chooses.
        precision: the precision that it always uses; empty if the device chooses.
        check: refuses params that cannot work, before any work and without data.
    """

    network: Callable[..., Classifier]
    train: Callable[[Any, Job], Trained]
    title: Callable[[Any], str]
    params: type[Section] = NoParams
    recipes: bool = False
    device: str = ""
    precision: str = ""
    check: Callable[[Any], None] = lambda _: None


@dataclass(frozen=True)
class Model:
    """A model to train: an approach with its params.

    Attributes:
        name: the name of its result folder.
        module: the name of its approach's module in pipeline/approaches.
        section: the section of its params in params.yaml, for example cnn.tuned.
    """

    name: str
    module: str
    section: str
    approach: Approach
    params: Section

    @property
    def training(self) -> TrainingParams | None:
        """The knobs of the training loop; None if the approach does not use the loop."""
        return getattr(self.params, "training", None)

    def recipe(self, params: Params, processes: int) -> dict[str, Any]:
        """All params that the training depends on, as the card and MLflow hold them."""
        recipe = self.params.model_dump() | {"seed": params.seed}
        if self.approach.device:  # with a fixed device, the params below change nothing
            return recipe
        return recipe | {"device": params.device, "processes": processes, "deterministic": params.deterministic}
