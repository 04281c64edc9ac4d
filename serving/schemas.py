"""The options and answers of the service, and the card of its model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_NAMES = ("car", "truck")
"""The classes in the examples; `openapi` replaces them by the model's classes."""

FILE = "a PNG, JPEG, WebP, BMP or GIF file of any size"
PARTIAL = "answer the good images, and give the reason for each bad one"
PIXELS = "also give the 32x32 pixels that the model saw"
"""Descriptions of what a request may hold, for people."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

PROBABILITIES = {"car": 0.017, "truck": 0.983}
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class Prediction(BaseModel):
    """The model's answer to one image or, in a partial answer, why the image has none."""

    label: str | None = Field(None, description="the likelier class", examples=["truck"])
    probability: Share | None = Field(None, description="of this label", examples=[0.983])
    probabilities: dict[str, float] | None = Field(None, description="of each class", examples=[PROBABILITIES])
    filename: str | None = Field(None, description="as it was sent", examples=["lorry.jpg"])
    width: int | None = Field(None, ge=1, description="of the file, in pixels", examples=[640])
    height: int | None = Field(None, ge=1, description="of the file, in pixels", examples=[480])
    sha256: str | None = Field(None, description="of the file", examples=[SHA256])
    pixels: str | None = Field(None, description="with `pixels=true`: the 32x32 pixels the model saw, PNG in base64")
    error: str | None = Field(None, description="with `partial=true`: why this image has no answer")
    code: str | None = Field(None, description="with `partial=true`: the reason in one word")
    index: int | None = Field(None, description="with `partial=true`: the image's place, counted from 0")


class Model(BaseModel):
    """The model that answered."""

    name: str = Field(examples=["transfer"])
    digest: str = Field(description="SHA-256 of its ONNX file", examples=[SHA256])
    dataset_digest: str = Field(description="of the images it was trained on", examples=[SHA256])
    commit: str | None = Field(description="of the code that packaged it")
    run_id: str | None = Field(description="of its run in MLflow; null where MLflow could not be reached")
    test_accuracy: Share = Field(examples=[0.977])
    test_accuracy_interval: list[Share] = Field(
        min_length=2, max_length=2, description="95 %, Wilson", examples=[[0.9695, 0.9827]]
    )


class Card(Model):
    """What the service must know about its model; card.json also describes how it was made."""

    model_config = ConfigDict(extra="allow", strict=True)

    title: str = Field(description="the approach in a few words")
    class_names: list[str] = Field(
        min_length=2, max_length=2, description="of label 0 and label 1", examples=[list(EXAMPLE_NAMES)]
    )
    test_images: int = Field(ge=1, description="number of images behind the test accuracy", examples=[2000])
    individual_people_accuracy: Share | None = Field(description="of people on such images; null where it is unknown")


class Predictions(BaseModel):
    """One prediction for each image, in the order in which they were sent, and the model that made them."""

    predictions: list[Prediction]
    model: Model


class ExplanationAnswer(BaseModel):
    """What the model looked at in one image."""

    label: str = Field(examples=["truck"])
    probability: Share = Field(description="of this label", examples=[0.983])
    probabilities: dict[str, float] = Field(examples=[PROBABILITIES])
    method: str = Field(description="how the grid was made")
    grid: list[list[float]] = Field(
        description="8 rows of 8 cells, each 4x4 pixels of the 32x32: how far the log-odds of the label fall when the "
        "cell is covered; a cell above 0 speaks for the label"
    )
    overlay: str = Field(
        description="the grid over the image, blue for the first class, vermilion for the second: a PNG file in base64"
    )
    pixels: str = Field(description="the 32x32 pixels that the model saw: a PNG file in base64")
    filename: str | None
    width: int
    height: int
    sha256: str
    model: Model


class Error(BaseModel):
    """Why a request was refused."""

    error: str = Field(
        description="a sentence for people", examples=["notes.txt is not a PNG, JPEG, WEBP, BMP or GIF image."]
    )
    code: str = Field(
        description="a word for programs, always the same for the same reason", examples=["unknown_format"]
    )
    index: int | None = Field(None, description="the place of the image that the error is about, counted from 0")
    filename: str | None = Field(None, description="the name of the image that the error is about")


def json_schemas() -> dict[str, Any]:
    """All these models as JSON schemas, by name, for the components of an OpenAPI document."""
    from pydantic.json_schema import models_json_schema  # noqa: PLC0415

    models = [(model, "validation") for model in (Prediction, Model, Card, Predictions, ExplanationAnswer, Error)]
    _, document = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    definitions: dict[str, Any] = document["$defs"]
    return definitions
