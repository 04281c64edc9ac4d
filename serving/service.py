"""The BentoML service: `bentoml serve` in the repository root, or out of a Bento."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.exceptions import BadInput
from pydantic import BaseModel, Field

from serving.classifier import Classifier, ModelFault
from serving.images import BadImage, read_image

MODEL_FOLDER = Path(__file__).parent.parent / "models" / "champion"
MAX_IMAGES = 64


class Prediction(BaseModel):
    """What the model says of one image."""

    label: str
    probability: float = Field(description="of this label")
    probabilities: dict[str, float] = Field(description="of each class")


class Predictions(BaseModel):
    """One prediction an image, in the order sent, and which model made them."""

    predictions: list[Prediction]
    model: dict[str, Any]


@bentoml.service(name="car_or_truck", http={"host": "127.0.0.1"}, traffic={"timeout": 30})
class CarOrTruck:
    """Tells cars from trucks."""

    def __init__(self) -> None:
        try:
            self.classifier = Classifier.load(MODEL_FOLDER)
        except ModelFault as fault:
            sys.exit(f"error: {fault}")
        card = self.classifier.card
        self.model = {"name": card["name"], "digest": card["files"]["model.onnx"]["sha256"]} | {
            key: card[key] for key in ("dataset_digest", "commit", "run_id", "test_accuracy", "test_accuracy_interval")
        }

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, images: Annotated[list[Path], Field(min_length=1, max_length=MAX_IMAGES)]) -> Predictions:
        """Classify 1 to 64 images (PNG, JPEG, WebP, BMP or GIF, any size)."""
        pixels = []
        for number, path in enumerate(images, start=1):
            try:
                pixels.append(read_image(path))
            except BadImage as fault:
                raise BadInput(f"image {number} {fault}") from None
        first, second = self.classifier.class_names
        return Predictions(
            predictions=[
                Prediction(
                    label=second if p > 0.5 else first,
                    probability=max(p, 1 - p),
                    probabilities={first: 1 - p, second: p},
                )
                for p in self.classifier.probabilities(np.stack(pixels)).astype(float)
            ],
            model=self.model,
        )
