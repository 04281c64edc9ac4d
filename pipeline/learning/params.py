"""The knobs of the training loop. An approach that uses the loop has them in its own params."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.base.params import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class TrainingParams(Section):
    """The knobs of the training loop, explained in params.yaml."""

    epochs: Annotated[int, Field(gt=0, le=10_000)]
    batch_size: Annotated[int, Field(gt=1)]
    optimizer: Literal["rmsprop", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    schedule: Literal["constant", "one_cycle"]
    flip: bool
    shift: Annotated[int, Field(ge=0, le=16)]
    cutout: Annotated[int, Field(ge=0, le=31)]
    label_smoothing: Share
    ema_decay: Share
