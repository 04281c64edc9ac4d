"""What an approach says about itself, what its training is given, and what it gives back."""

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
    """What a training is given beside its params.

    Attributes:
        checkpoint: where the state after each epoch is kept; the training goes on from it when it is there.
        on_epoch: is called with each epoch as it ends, and at once with those of a checkpoint.
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
    """What a training gives back.

    Attributes:
        seconds: that it took.
        first_filters: the weights `[filters, C, H, W]` of the first convolution before the first epoch.
        frozen_logits: what a head on frozen layers says about the images of a split, float32 `[n]`.
        pretrained_sha256: `digest_of_weights` of the layers that it started from; None where it started from nothing.
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
    """An approach; its module has one, called `APPROACH`, and all other rooms know no more than this.

    Attributes:
        network: builds the network, given the architecture that the model's card has.
        train: one training, given its params.
        title: the approach in a few words, for tables and pages, given its params.
        params: the type of its section in params.yaml.
        recipes: whether its section has several recipes by name, each of them `params`; each makes a model.
        device: where it always computes; empty for the params' choice.
        precision: what it always trains in; empty for what the device does best.
        check: refuses params that cannot work, before any work, without data.
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
    """A model to train: an approach under certain params.

    Attributes:
        name: of its result folder.
        module: of its approach, in pipeline/approaches.
        section: where params.yaml has its params, for example cnn.tuned.
    """

    name: str
    module: str
    section: str
    approach: Approach
    params: Section

    @property
    def training(self) -> TrainingParams | None:
        """The knobs of the training loop; None where the approach does not use it."""
        return getattr(self.params, "training", None)

    def recipe(self, params: Params, processes: int) -> dict[str, Any]:
        """All the params that its training depends on, as they go into the card and into MLflow."""
        recipe = self.params.model_dump() | {"seed": params.seed}
        if self.approach.device:  # what is always done on the CPU depends on none of these
            return recipe
        return recipe | {"device": params.device, "processes": processes, "deterministic": params.deterministic}
