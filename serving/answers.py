"""From the files of a request to the answer: decode the files, run the model, describe its result."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving import metrics
from serving.classifier import Classifier
from serving.explain import METHOD, occlusion, overlay, png
from serving.images import BadImage, ReadImage, read_image
from serving.refusals import Refusal
from serving.schemas import Model
from serving.settings import Settings
from serving.uploads import File


@dataclass(frozen=True)
class Answers:
    """Makes the answers, as dictionaries for JSON; `serving.schemas` describes them."""

    classifier: Classifier
    settings: Settings

    @property
    def model(self) -> dict[str, Any]:
        """The facts about the model that every answer names."""
        return self.classifier.card.model_dump(include=set(Model.model_fields))

    def predict(self, files: list[File], *, partial: bool = False, pixels: bool = False) -> dict[str, Any]:
        """One prediction for each file, in the same order.

        Args:
            partial: answer the files that can be read; each other file gets the reason in place of a prediction.
            pixels: also give the 32x32 pixels that the model saw.

        Raises:
            Refusal: a file cannot be read and `partial` is false, or all images together are too large.
        """
        with metrics.DECODE_SECONDS.time():
            read = self._read(files, partial=partial)
        images = [image.pixels for image in read if isinstance(image, ReadImage)]
        probabilities = iter(())
        if images:
            with metrics.INFERENCE_SECONDS.time():
                probabilities = iter(self.classifier.probabilities(np.stack(images)).tolist())
        predictions = [
            self._verdict(next(probabilities)) | _about(file, image) | (_pixels(image) if pixels else {})
            if isinstance(image, ReadImage)
            else image.document() | {"sha256": _sha256(file)}
            for file, image in zip(files, read, strict=True)
        ]
        return {"predictions": predictions, "model": self.model}

    def explain(self, file: File) -> tuple[dict[str, Any], bytes]:
        """What the model looked at in one file: the answer, and a picture of it as a PNG file.

        Raises:
            Refusal: the file cannot be read.
        """
        (image,) = self._read([file], partial=False)
        assert isinstance(image, ReadImage)  # noqa: S101  # without `partial`, a bad file raises
        explanation = occlusion(self.classifier, image.pixels)
        picture = overlay(image.pixels, explanation)
        answer = self._verdict(explanation.probability) | _about(file, image) | _pixels(image)
        answer |= {"method": METHOD, "grid": explanation.grid.round(4).tolist(), "model": self.model}
        return answer | {"overlay": base64.b64encode(picture).decode()}, picture

    def _read(self, files: list[File], *, partial: bool) -> list[ReadImage | Refusal]:
        read: list[ReadImage | Refusal] = []
        pixels = 0
        for index, file in enumerate(files):
            try:
                image = read_image(file.content, self.settings.max_megapixels * 1e6)
            except BadImage as fault:
                name = file.filename or f"Image {index + 1}"
                refusal = Refusal(422, fault.code, f"{name} {fault}.", index=index, filename=file.filename)
                if not partial:
                    raise refusal from None
                read.append(refusal)
                continue
            pixels += image.width * image.height
            if pixels > self.settings.max_request_megapixels * 1e6:
                limit = f"{self.settings.max_request_megapixels:g} megapixels"
                raise Refusal(413, "too_many_pixels", f"All images of a request together may have {limit} at most.")
            read.append(image)
        return read

    def _verdict(self, probability: float) -> dict[str, Any]:
        first, second = self.classifier.class_names
        each = {first: round(1 - probability, 6), second: round(probability, 6)}
        label = second if probability > 0.5 else first
        metrics.IMAGES.labels(label).inc()
        metrics.PROBABILITY.observe(each[label])
        return {"label": label, "probability": each[label], "probabilities": each}


def _about(file: File, image: ReadImage) -> dict[str, Any]:
    return {"filename": file.filename, "width": image.width, "height": image.height, "sha256": _sha256(file)}


def _sha256(file: File) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _pixels(image: ReadImage) -> dict[str, str]:
    return {"pixels": base64.b64encode(png(image.pixels)).decode()}
