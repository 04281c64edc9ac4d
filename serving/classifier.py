"""The packaged champion: an ONNX model and its card. Loading checks that they belong together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import ValidationError

from serving.schemas import Card

SCHEMA = 1
"""The version of card.json that this code reads."""

BATCH = 2
"""Images in one run of the model. More are not faster on a CPU (benchmarks/serving.md), and each takes 8 MB."""


class ModelFault(Exception):
    """The service cannot use the model folder; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class Classifier:
    """Classifies images into two classes.

    Attributes:
        class_names: the names of label 0 and label 1.
        card: everything in card.json, and the SHA-256 of the ONNX file.
        session: the loaded ONNX model.
    """

    class_names: tuple[str, str]
    card: Card
    session: ort.InferenceSession

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Classifier:
        """Load `folder`/model.onnx if its SHA-256 is the one in the card, and warm it up with one black image.

        Args:
            folder: holds model.onnx and card.json.
            threads: how many ONNX Runtime may use for one run; 0 means one for each core.

        Raises:
            ModelFault: a file is missing or damaged, or the card has another schema.
        """
        card = _read_card(folder / "card.json")
        path = folder / "model.onnx"
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ModelFault(f"{path} cannot be read ({error.strerror}): run `dvc repro`") from None
        if hashlib.sha256(model).hexdigest() != card.digest:
            raise ModelFault(f"{path} is not the model of its card.json (SHA-256 differs): run `dvc repro`")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime does not document its classes of errors
            raise ModelFault(f"{path}: ONNX Runtime cannot load it ({error}): run `dvc repro`") from None
        first, second = card.class_names
        classifier = cls((first, second), card, session)
        classifier.probabilities(np.zeros((1, 32, 32, 3), np.uint8))
        return classifier

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of label 1, float32 `[N]`, for images, uint8 `[N, 32, 32, 3]`, RGB, with N of at least 1."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return np.concatenate([self.session.run(["probability"], {"images": part})[0] for part in parts])


def _read_card(path: Path) -> Card:
    try:
        card = json.loads(path.read_bytes())
        schema = card["schema"]
        if schema == SCHEMA:
            return Card.model_validate(card | {"digest": card["files"]["model.onnx"]["sha256"]})
    except OSError as error:
        raise ModelFault(f"{path} cannot be read ({error.strerror}): run `dvc repro`") from None
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ModelFault(f"{path} is damaged ({key}: {error.errors()[0]['msg']}): run `dvc repro`") from None
    except (ValueError, KeyError, TypeError):
        raise ModelFault(f"{path} is damaged: run `dvc repro`") from None
    raise ModelFault(f"{path} has schema {schema}, but this service reads schema {SCHEMA}: run `dvc repro`")
