"""`make verify`: hold the results against their claims, offline, from the record files to the answers of the service.

Nothing is trusted that can be computed: digests are taken anew, the dataset is extracted again from the record files,
each model is rebuilt from its folder and its test accuracy measured again, and the service is asked over HTTP.
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

from pipeline import car_truck, known_facts, leaderboard, results, served
from pipeline.errors import PipelineError, run_as_command
from pipeline.evaluation import measure, predict_logits
from pipeline.export import SCHEMA, onnx_probabilities
from pipeline.files import BENTO, CHAMPION, CIFAR10, read_json, sha256_of
from pipeline.models import LeastSquares
from pipeline.params import Params, load_params
from pipeline.results import Result

TOLERANCE = 1e-3
"""How far a rebuilt model's probabilities may lie from the recorded ones: other processors sum in another order."""

REPORTS = Path("reports")


def check_dataset(params: Params) -> str:
    """Extract the dataset again and compare every pixel, label and split with what is on disk."""
    records = params.download.records(CIFAR10)
    made = car_truck.extract(records, params.data, params.seed)
    found = car_truck.load()
    if made.digest != found.digest or not made.manifest.astype(object).equals(found.manifest.astype(object)):
        raise PipelineError("data/car_truck is not what data/cifar10 and params.yaml give: run `dvc repro -f extract`")
    return f"{len(records)} record files and {len(found.images)} images with their splits: digest {found.digest[:12]}…"


def check_model(folder: Path, dataset: car_truck.Dataset, sound: list[Result]) -> str:
    """Rebuild a model from its folder and measure its test accuracy again; it joins `sound` when it can be read."""
    result = results.read(folder)
    sound.append(result)
    if result.card.dataset_digest != dataset.digest:
        raise PipelineError(f"{result.folder}/card.json names other data than data/car_truck: run `dvc repro`")
    model = result.model()
    claimed = measure(result.predictions, model, result.metrics.seconds, {})
    splits = [f"{split}_accuracy" for split in car_truck.SPLITS]
    for name in (*splits, "test_accuracy_low", "test_accuracy_high", "parameters"):
        if getattr(claimed, name) != getattr(result.metrics, name):
            raise PipelineError(f"{result.folder}/metrics.json: {name} is not what model and predictions give")
    rows = dataset.rows("test")
    probabilities = torch.sigmoid(torch.from_numpy(predict_logits(model, dataset.images[rows], torch.device("cpu"))))
    difference = float(np.abs(probabilities.numpy() - _recorded(result)[rows]).max())
    accuracy = float(((probabilities.numpy() > 0.5) == (dataset.labels[rows] == 1)).mean())
    # Another processor sums in another order, which may flip an answer that lies on the fence.
    fence = int((np.abs(_recorded(result)[rows] - 0.5) < TOLERANCE).sum())
    if difference > TOLERANCE or abs(accuracy - result.metrics.test_accuracy) * len(rows) > fence:
        raise PipelineError(
            f"{result.folder}: rebuilt, it has {accuracy:.2%} on test, not {result.metrics.test_accuracy:.2%}, "
            f"and its probabilities differ from predictions.parquet by up to {difference:.2g}"
        )
    if results.read_record(folder).result_digest != results.result_digest(folder):
        raise PipelineError(f"{folder}/run.json was written for another result: run `dvc repro`, or `dvc checkout`")
    return f"{result.card.name}: rebuilt from its folder, {accuracy:.2%} of {len(rows)} test images right, as claimed"


def check_least_squares(params: Params) -> str:
    """Least squares on all training images, without a validation split, is a known figure."""
    data = params.data.model_copy(update={"validation_share": 0.0})
    dataset = car_truck.extract(params.download.records(CIFAR10), data, params.seed)
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


def check_leaderboard(models: list[Result], dataset: car_truck.Dataset, params: Params) -> str:
    """Build the leaderboard again out of the result folders."""
    document = leaderboard.build(models, dataset)
    if document != read_json(REPORTS / "leaderboard.json"):
        raise PipelineError("reports/leaderboard.json is not what the result folders give: run `dvc repro compare`")
    return f"leaderboard of {len(models)} models, champion {document['champion']}"


def check_champion(models: list[Result], dataset: car_truck.Dataset, tolerance: float) -> str:
    """The packaged model is the best result, and answers the test split as that does."""
    card = read_json(CHAMPION / "card.json")
    if card["schema"] != SCHEMA:
        raise PipelineError(f"{CHAMPION}/card.json has schema {card['schema']}, not {SCHEMA}: run `dvc repro`")
    best = {result.card.name: result for result in models}[read_json(REPORTS / "leaderboard.json")["champion"]]
    if (card["name"], card["weights_sha256"]) != (best.card.name, best.card.weights_sha256):
        raise PipelineError(f"{CHAMPION} was made from other weights than {best.folder}'s: run `dvc repro`")
    if card["files"]["model.onnx"]["sha256"] != sha256_of(CHAMPION / "model.onnx"):
        raise PipelineError(f"{CHAMPION}/model.onnx is damaged: its SHA-256 is not that of card.json; run `dvc repro`")
    rows = dataset.rows("test")
    difference = np.abs(onnx_probabilities(CHAMPION / "model.onnx", dataset.images[rows]) - _recorded(best)[rows]).max()
    if difference > tolerance:
        raise PipelineError(f"{CHAMPION}/model.onnx answers differently from {best.folder}: by up to {difference:.2g}")
    return f"champion {best.card.name}: its ONNX answers on the test split differ by at most {difference:.1g}"


def _recorded(result: Result) -> NDArray[np.float32]:
    """The recorded probabilities of label 1, by image id."""
    return result.predictions["probability"].to_numpy(np.float32)


def check_bento() -> str:
    """The Bento holds the champion and the service that is here, byte for byte."""
    expected = {CHAMPION / "model.onnx", CHAMPION / "card.json", *Path("serving").glob("*.py")}
    expected |= set(Path("serving/web").iterdir())
    with tarfile.open(BENTO) as bento:
        members = {member.name.removeprefix("./"): member for member in bento.getmembers()}
        for path in sorted(expected):
            member = members.get(f"src/{path}")
            file = member and bento.extractfile(member)
            if not file or sha256(file.read()).hexdigest() != sha256_of(path):
                raise PipelineError(f"{BENTO}: {path} is not in it, or another one; run `dvc repro -f package`")
    return f"{BENTO}: carries the champion and the service, byte for byte"


def check_service(models: list[Result], dataset: car_truck.Dataset, tolerance: float) -> str:
    """`bentoml serve` answers every test image, sent as a PNG file, as the champion's result says."""
    name = read_json(CHAMPION / "card.json")["name"]
    champion = {result.card.name: result for result in models}[name]
    rows = dataset.rows("test")
    recorded = _recorded(champion)[rows]
    with served.serving() as address:
        answers = served.classify(address, dataset.images[rows])
    found = np.array([answer[dataset.class_names[1]] for answer in answers])
    flipped, difference = int(((found > 0.5) != (recorded > 0.5)).sum()), np.abs(found - recorded).max()
    if flipped or difference > tolerance:
        raise PipelineError(
            f"the service answers differently from {champion.folder}: {flipped} labels of {len(rows)}, "
            f"probabilities by up to {difference:.2g}; run `dvc repro`"
        )
    return f"the service: every label of {len(rows):,} PNG files, probabilities differ by at most {difference:.1g}"


def main() -> None:
    """Run every check; print a line for each, and fail at the end if one failed."""
    start = time.perf_counter()
    params = load_params()
    failures = _run({"data": lambda: check_dataset(params)})
    if failures:  # nothing below can be measured without the data
        sys.exit(1)
    if known_facts.apply_to(params.data.classes) and params.data.images_per_class.train == 5000:
        failures += _run({"least squares": lambda: check_least_squares(params)})
    dataset = car_truck.load()
    board = read_json(REPORTS / "leaderboard.json")
    models: list[Result] = []
    for entry in board["models"]:
        folder = results.MODELS / entry["name"]
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
    """Run checks, each named after what it looks at; returns how many failed."""
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
