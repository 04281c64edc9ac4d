"""Making models/champion from a result: an ONNX file, whose answers are compared with PyTorch's, and its card."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pipeline.base.errors import PipelineError
from pipeline.base.files import atomic, sha256_of, write_json
from pipeline.base.provenance import code_version
from pipeline.data.dataset import Dataset
from pipeline.learning.classifier import Classifier
from pipeline.results import known_facts
from pipeline.results.metrics import measure
from pipeline.results.result import Result, read_record

SCHEMA = 1
"""The version of the champion's card.json; the service reads only this version."""

SAMPLES_PER_CLASS = 4

PREPROCESSING = (
    "Input: uint8 RGB pixels [N, 32, 32, 3]. The model itself does all else (grayscale, normalisation, enlarging). "
    "Serving brings an image of another size to 32x32: centred square crop, area averaging."
)


class Probability(nn.Module):
    """A classifier that answers with the probability of label 1 instead of its logit."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """uint8 `[N, 32, 32, 3]` -> float32 `[N]`, 0 to 1."""
        return torch.sigmoid(self.classifier(images))


def export_onnx(model: Classifier, path: Path) -> None:
    """Write `model` as ONNX: input `images` uint8 `[N, 32, 32, 3]` with N free, output `probability` float32 `[N]`."""
    example = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    with atomic(path) as temporary:
        torch.onnx.export(
            Probability(model).eval(),
            (example,),
            temporary,
            input_names=["images"],
            output_names=["probability"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            external_data=False,
            verbose=False,
        )
        _strip(temporary)


def _strip(path: Path) -> None:
    """Remove the code and the folder that each node came from, so that the same model always gives the same file."""
    model = onnx.load(path)
    parts: list[Any] = [model, model.graph, *model.functions]
    for graph in (model.graph, *model.functions):
        parts += [*graph.node, *graph.value_info]
    parts += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(model, path)


def onnx_probabilities(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ONNX Runtime's probabilities of label 1, float32 `[N]`, for uint8 images `[N, 32, 32, 3]`."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = [images[start : start + 50] for start in range(0, len(images), 50)]
    return np.concatenate([session.run(["probability"], {"images": np.array(batch)})[0] for batch in batches])


def prove(path: Path, result: Result, dataset: Dataset, tolerance: float) -> float:
    """Compare ONNX Runtime's answers on the test split with those that PyTorch gave after the training.

    Returns:
        The largest difference between two probabilities.

    Raises:
        PipelineError: a label differs, or a probability differs by more than `tolerance`.
    """
    rows = dataset.rows("test")
    answers = onnx_probabilities(path, dataset.images[rows])
    expected = result.predictions["probability"].to_numpy(np.float32)[rows]
    difference, flipped = float(np.abs(answers - expected).max()), int(((answers > 0.5) != (expected > 0.5)).sum())
    if flipped or not difference <= tolerance:  # `not <=` refuses a NaN too
        raise PipelineError(
            f"{path}: ONNX Runtime's answers differ from {result.name}'s: {flipped} labels of {len(rows)}, "
            f"probabilities by up to {difference:.2g} (package.tolerance = {tolerance:g})"
        )
    return difference


def package(result: Result, network: Classifier, dataset: Dataset, tolerance: float, folder: Path) -> dict[str, Any]:
    """Export the champion into `folder` and write the card that serving reads. Returns the card.

    Args:
        network: the network of the result, rebuilt.
        tolerance: the largest allowed difference between the probabilities of ONNX Runtime and PyTorch.
    """
    with tempfile.TemporaryDirectory() as scratch:  # `folder` gets the file only after the proof
        unproved = Path(scratch) / "model.onnx"
        export_onnx(network, unproved)
        difference = prove(unproved, result, dataset, tolerance)
        with atomic(folder / "model.onnx") as temporary:
            temporary.write_bytes(unproved.read_bytes())
    write_samples(dataset, folder / "samples")
    code, metrics = code_version(), measure(result)
    card = {
        "schema": SCHEMA,
        "name": result.name,
        "title": result.card.title,
        "class_names": result.card.class_names,
        "preprocessing": PREPROCESSING,
        "train_accuracy": metrics.train_accuracy,
        "validation_accuracy": metrics.validation_accuracy,
        "test_accuracy": metrics.test_accuracy,
        "test_accuracy_interval": [metrics.test_accuracy_low, metrics.test_accuracy_high],
        "individual_people_accuracy": (
            known_facts.HUMAN_INDIVIDUAL if known_facts.apply_to(result.card.classes) else None
        ),
        "test_images": len(result.test),
        "parity": {"largest_difference": difference, "tolerance": tolerance},
        "dataset_digest": result.card.dataset_digest,
        "weights_sha256": result.card.weights_sha256,
        "commit": code.commit,
        "code_changed": code.changed,
        "run_id": read_record(result.folder).run_id,
        "files": {"model.onnx": {"sha256": sha256_of(folder / "model.onnx")}},
        "versions": result.card.versions | {name: version(name) for name in ("onnx", "onnxruntime")},
    }
    write_json(folder / "card.json", card)
    return card


def write_samples(dataset: Dataset, folder: Path) -> None:
    """Write the first test images of each class as PNG files, `car-1.png` and so on, for the page of the service."""
    rows = dataset.rows("test")
    for label, name in enumerate(dataset.class_names):
        for number, row in enumerate(rows[dataset.labels[rows] == label][:SAMPLES_PER_CLASS], start=1):
            with atomic(folder / f"{name}-{number}.png") as temporary:
                Image.fromarray(dataset.images[row]).save(temporary)
