"""`make verify`: check all results without a network, from the record files to the answers of the service.

Everything that can be computed is computed again: the digests, the dataset from the record files, and the test accuracy
of each model, which is rebuilt from its folder. The service is asked over HTTP.
"""

from __future__ import annotations

import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import approaches
from pipeline.approaches.baseline import LeastSquares
from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.files import BENTO, CHAMPION, CIFAR10, METRICS, MODELS, REPORTS, RESULTS, read_json, sha256_of
from pipeline.base.params import Params, load_params
from pipeline.commands import served
from pipeline.data.dataset import Dataset, load
from pipeline.data.extract import extract
from pipeline.learning.predict import predict_logits
from pipeline.packaging.export import SCHEMA, onnx_probabilities
from pipeline.results import known_facts, leaderboard
from pipeline.results.metrics import measure
from pipeline.results.result import Result, read, read_record, result_digest

TOLERANCE = 1e-3
"""The allowed difference of a rebuilt model's probabilities to the recorded ones: processors sum in other orders."""


def check_dataset(params: Params) -> str:
    """Extract the dataset again and compare every pixel, label and split with the files on disk."""
    records = params.download.records(CIFAR10)
    made, stored = extract(records, params.data, params.seed), load()
    if made.digest != stored.digest or not made.manifest.astype(object).equals(stored.manifest.astype(object)):
        raise PipelineError("data/dataset does not match data/cifar10 and params.yaml: run `dvc repro -f extract`")
    return f"{len(records)} record files and {len(stored.images)} images with splits: digest {stored.digest[:12]}…"


def check_model(folder: Path, dataset: Dataset, readable: list[Result]) -> str:
    """Rebuild a model from its folder and measure its test accuracy again. A readable result is added to `readable`."""
    result = read(folder)
    readable.append(result)
    if result.card.dataset_digest != dataset.digest:
        raise PipelineError(f"{result.folder}/card.json names other data than data/dataset: run `dvc repro`")
    network, metrics = approaches.rebuild(result.card, folder), measure(result)
    if metrics.model_dump(exclude_none=True) != read_json(METRICS / f"{result.name}.json"):
        raise PipelineError(f"reports/metrics/{result.name}.json does not match the predictions: run `dvc repro`")
    if sum(weight.numel() for weight in network.parameters()) != result.card.parameters:
        raise PipelineError(f"{folder}/card.json: the network does not have {result.card.parameters:,} parameters")
    rows = dataset.rows("test")
    probabilities = torch.sigmoid(torch.from_numpy(predict_logits(network, dataset.images[rows], torch.device("cpu"))))
    difference = float(np.abs(probabilities.numpy() - _recorded(result)[rows]).max())
    accuracy = float(((probabilities.numpy() > 0.5) == (dataset.labels[rows] == 1)).mean())
    # Another processor sums in another order, which may flip an answer very near 0.5.
    fence = int((np.abs(_recorded(result)[rows] - 0.5) < TOLERANCE).sum())
    if not difference <= TOLERANCE or abs(accuracy - metrics.test_accuracy) * len(rows) > fence:
        raise PipelineError(
            f"{result.folder}: the rebuilt model has {accuracy:.2%} on test, not {metrics.test_accuracy:.2%}, "
            f"and its probabilities differ from predictions.parquet by up to {difference:.2g}"
        )
    digest = result_digest(folder)
    if read_record(folder).result_digest != digest or read_json(RESULTS).get(result.name) != digest:
        raise PipelineError(f"{folder}/run.json was written for another result: run `dvc repro`, or `dvc checkout`")
    return f"{result.name}: rebuilt from its folder, {accuracy:.2%} of {len(rows)} test images right, as claimed"


def check_least_squares(params: Params) -> str:
    """Compare least squares on all training images, without a validation split, with the known accuracy."""
    data = params.data.model_copy(update={"validation_share": 0.0})
    dataset = extract(params.download.records(CIFAR10), data, params.seed)
    accuracy = []
    train = dataset.rows("train")
    model = LeastSquares().fit(torch.from_numpy(dataset.images[train]), torch.from_numpy(dataset.labels[train]))
    for split in ("train", "test"):
        rows = dataset.rows(split)
        logits = predict_logits(model, dataset.images[rows], torch.device("cpu"))
        accuracy.append(round(float(((logits > 0) == (dataset.labels[rows] == 1)).mean()), 4))
    if tuple(accuracy) != known_facts.LEAST_SQUARES:
        raise PipelineError(f"least squares gives {accuracy} on all training images, not {known_facts.LEAST_SQUARES}")
    return f"least squares on all {len(train)} training images: {accuracy[0]:.2%} train, {accuracy[1]:.2%} test"


def check_leaderboard(models: list[Result], dataset: Dataset, params: Params) -> str:
    """Build the leaderboard again from the result folders."""
    document = leaderboard.build(models, dataset)
    if document != read_json(REPORTS / "leaderboard.json"):
        raise PipelineError("reports/leaderboard.json does not match the result folders: run `dvc repro compare`")
    return f"leaderboard of {len(models)} models, champion {document['champion']}"


def check_champion(models: list[Result], dataset: Dataset, tolerance: float) -> str:
    """Check that the packaged model is the best result and gives the same answers on the test split."""
    card = read_json(CHAMPION / "card.json")
    if card["schema"] != SCHEMA:
        raise PipelineError(f"{CHAMPION}/card.json has schema {card['schema']}, not {SCHEMA}: run `dvc repro`")
    best = {result.name: result for result in models}[read_json(REPORTS / "leaderboard.json")["champion"]]
    if (card["name"], card["weights_sha256"]) != (best.name, best.card.weights_sha256):
        raise PipelineError(f"{CHAMPION} was made from other weights than {best.folder}'s: run `dvc repro`")
    if card["files"]["model.onnx"]["sha256"] != sha256_of(CHAMPION / "model.onnx"):
        raise PipelineError(f"{CHAMPION}/model.onnx is damaged: its SHA-256 is not that of card.json; run `dvc repro`")
    rows = dataset.rows("test")
    difference = np.abs(onnx_probabilities(CHAMPION / "model.onnx", dataset.images[rows]) - _recorded(best)[rows]).max()
    if not difference <= tolerance:  # `not <=` refuses a NaN too
        raise PipelineError(f"{CHAMPION}/model.onnx answers differently from {best.folder}: by up to {difference:.2g}")
    return f"champion {best.name}: its ONNX answers on the test split differ by at most {difference:.1g}"


def _recorded(result: Result) -> NDArray[np.float32]:
    """The recorded probabilities of label 1, by image id."""
    return result.predictions["probability"].to_numpy(np.float32)


def check_bento() -> str:
    """Check that the Bento holds this champion and this service, byte for byte."""
    expected = {CHAMPION / "model.onnx", CHAMPION / "card.json", *Path("serving").glob("*.py")}
    expected |= set(Path("serving/web").iterdir())
    with tarfile.open(BENTO) as bento:
        members = {member.name.removeprefix("./"): member for member in bento.getmembers()}
        for path in sorted(expected):
            member = members.get(f"src/{path}")
            file = member and bento.extractfile(member)
            if not file or sha256(file.read()).hexdigest() != sha256_of(path):
                raise PipelineError(f"{BENTO}: its {path} is missing or differs; run `dvc repro -f package`")
    return f"{BENTO}: carries the champion and the service, byte for byte"


def check_service(models: list[Result], dataset: Dataset, tolerance: float) -> str:
    """Check that `bentoml serve` answers every test image, sent as a PNG file, as recorded in the champion's result."""
    name = read_json(CHAMPION / "card.json")["name"]
    champion = {result.name: result for result in models}[name]
    rows = dataset.rows("test")
    recorded = _recorded(champion)[rows]
    with served.serving() as address:
        answers = served.classify(address, dataset.images[rows])
    served_ones = np.array([answer[dataset.class_names[1]] for answer in answers])
    flipped, difference = int(((served_ones > 0.5) != (recorded > 0.5)).sum()), np.abs(served_ones - recorded).max()
    if flipped or not difference <= tolerance:
        raise PipelineError(
            f"the service answers differently from {champion.folder}: {flipped} labels of {len(rows)}, "
            f"probabilities by up to {difference:.2g}; run `dvc repro`"
        )
    return f"the service: recorded labels for {len(rows):,} PNG files, probabilities differ by at most {difference:.1g}"


def main() -> None:
    """Run every check and print a line for each. Fail at the end if one failed."""
    start = time.perf_counter()
    params = load_params()
    failures = _run({"data": lambda: check_dataset(params)})
    if failures:  # all checks below need the data
        sys.exit(1)
    if known_facts.apply_to(params.data.classes) and params.data.images_per_class.train == 5000:
        failures += _run({"least squares": lambda: check_least_squares(params)})
    dataset = load()
    board = read_json(REPORTS / "leaderboard.json")
    models: list[Result] = []
    for entry in board["models"]:
        folder = MODELS / entry["name"]
        failures += _run({str(folder): partial(check_model, folder, dataset, models)})
    failures += _run(
        {
            str(REPORTS): lambda: check_leaderboard(models, dataset, params),
            str(CHAMPION): lambda: check_champion(models, dataset, params.package.tolerance),
            str(BENTO): check_bento,
            "the service": lambda: check_service(models, dataset, params.package.tolerance),
        }
    )
    print(f"{f'{failures} FAILED' if failures else 'all verified'} in {time.perf_counter() - start:.0f} s")
    if failures:
        sys.exit(1)


def _run(checks: dict[str, Callable[[], str]]) -> int:
    """Run the checks, by the name of the thing that each one checks. Returns how many failed."""
    failures = 0
    for place, check in checks.items():
        try:
            print(f"ok     {check()}", flush=True)
        except PipelineError as error:
            failures += 1
            print(f"FAILED {error}", flush=True)
        except (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError) as error:
            failures += 1
            print(
                f"FAILED {place} is incomplete or damaged ({type(error).__name__}: {error}): run `dvc repro`",
                flush=True,
            )
    return failures


if __name__ == "__main__":
    run_as_command(main)
