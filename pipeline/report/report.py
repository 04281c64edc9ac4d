"""The lecture with this run's own pictures and numbers, as one HTML file that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.files import FIGURES
from pipeline.base.params import Params
from pipeline.data.dataset import SPLITS, Dataset
from pipeline.learning.classifier import Classifier, grayscale
from pipeline.pictures import charts, figures
from pipeline.report.html import PAPER, Picture, coloured, file_picture, mosaic, picture, svg
from pipeline.results import known_facts
from pipeline.results.leaderboard import distinct
from pipeline.results.metrics import correct, mcnemar, measure, wilson
from pipeline.results.result import Result, read_record, result_digest
from pipeline.results.templating import render

TEMPLATE = Path(__file__).with_name("report.html")
VERTICAL = torch.tensor([[0.0, -1, 1]] * 3)
"""The lecture's filter for vertical edges. Its transpose is the filter for horizontal edges."""


def convolution(image: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """The content of section 1 for one image uint8 `[32, 32, 3]`: edge filters, a 3-d filter and max pooling."""
    gray = grayscale(torch.from_numpy(np.array(image)).float())
    maps = {"vertical": respond(gray[None], VERTICAL[None]), "horizontal": respond(gray[None], VERTICAL.T[None])}
    channels = torch.from_numpy(np.array(image)).float().permute(2, 0, 1)
    by_channel = [respond(channel[None], VERTICAL[None]) for channel in channels]
    strongest = int(maps["vertical"].abs().argmax())
    row, column = divmod(strongest, maps["vertical"].shape[1])
    patch = gray[row : row + 3, column : column + 3].round()
    return {
        "name": name,
        "image": picture(image),
        "gray": picture(gray.numpy().astype(np.uint8)),
        **{kind: coloured(response.numpy(), signed=True) for kind, response in maps.items()},
        "channels": [picture(one_channel(image, place)) for place in range(3)],
        "by_channel": [coloured(response.numpy(), signed=True) for response in by_channel],
        "sum": coloured(torch.stack(by_channel).sum(0).numpy(), signed=True),
        "pooled": coloured(F.max_pool2d(maps["vertical"].clamp(min=0)[None], 2)[0].numpy(), signed=True),
        "rectified": coloured(maps["vertical"].clamp(min=0).numpy(), signed=True),
        "place": (row, column),
        "patch": patch.int().tolist(),
        "response": int((patch * VERTICAL).sum()),
    }


def one_channel(image: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    """An image uint8 `[H, W, 3]` with only the channel `place`; the other channels are 0."""
    return np.where(np.arange(3) == place, image, 0).astype(np.uint8)


def respond(channels: Tensor, kernel: Tensor) -> Tensor:
    """The response map `[H - 2, W - 2]` of a filter `[C, 3, 3]` slid over `[C, H, W]`."""
    return F.conv2d(channels[None], kernel[None])[0, 0]


def shown_answers(rows: pd.DataFrame, dataset: Dataset) -> list[dict[str, Any]]:
    """The images of a predictions table with truth, prediction and its probability."""
    return [
        {"truth": truth, "predicted": predicted, "sure": sure, "right": truth == predicted, "image": picture(image)}
        for (truth, predicted, sure), image in zip(
            figures.verdicts(rows, dataset.class_names), dataset.images[rows["id"]], strict=True
        )
    ]


@torch.inference_mode()
def model_section(
    result: Result, network: Classifier, dataset: Dataset, images: dict[str, NDArray[np.uint8]]
) -> dict[str, Any]:
    """Everything that the report shows of one model.

    Args:
        images: one image uint8 `[32, 32, 3]` of each class, by the name of the class.
    """
    test = result.test
    folder = FIGURES / result.name
    filters = {when: folder / f"{name}.png" for when, name in (("before", "filters-epoch-0"), ("after", "filters"))}
    weights = network.pixel_weights()
    return {
        "name": result.name,
        "title": result.card.title,
        "metrics": measure(result),
        "lecture": known_facts.lecture_of(result.name, dataset.classes),
        "weights": None if weights is None else coloured(weights.numpy(), signed=True),
        "architecture": network.layers(),
        "filters": {when: file_picture(path) for when, path in filters.items() if path.exists()},
        "layers": shown_maps(network, images),
        **_curves(result),
        **_frozen(result),
        "answers": shown_answers(test.sample(min(20, len(test)), random_state=0), dataset),
        "mistakes": shown_answers(figures.most_confident_mistakes(test, 10), dataset),
        "mistakes_count": int((~correct(test)).sum()),
        "card": result.card,
    }


def shown_maps(network: Classifier, images: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """The response maps of each convolutional layer that vary most, for one image of each class."""
    layers = []
    for layer, maps in network.response_maps(torch.from_numpy(np.stack(list(images.values())))).items():
        # Maps are chosen for each image, because a filter that answers to one image often does not answer to the other.
        chosen = [answer[figures.most_varied(answer[None], 16)] for answer in maps]
        drawn = {name: mosaic(answer) for name, answer in zip(images, chosen, strict=True)}
        texts = [figures.shown_of(len(answer), maps, 16) for answer in chosen]
        layers.append({"name": layer, "texts": dict(zip(images, texts, strict=True)), "maps": drawn})
    return layers


def _frozen(result: Result) -> dict[str, Any]:
    """The interval of the test accuracy before fine-tuning, and the p-value of the change by fine-tuning."""
    if result.frozen is None:
        return {"frozen_interval": None, "frozen_p": None}
    before, after = (
        correct(table[table["split"] == "test"]).to_numpy(bool) for table in (result.frozen, result.predictions)
    )
    return {"frozen_interval": wilson(int(before.sum()), len(before)), "frozen_p": mcnemar(before, after)}


def _curves(result: Result) -> dict[str, str]:
    """The training curves, for wide pages and for phones; empty without epochs."""
    if not len(result.history):
        return {"curves": "", "curves_narrow": ""}
    wide, narrow = (
        charts.curves(result.history, result.card.name, smoothed=result.smoothed, narrow=narrow)
        for narrow in (False, True)
    )
    return {"curves": svg(wide), "curves_narrow": svg(narrow)}


def samples(dataset: Dataset, count: int = 12) -> dict[str, list[Picture]]:
    """Random training images of each class."""
    train = dataset.manifest[dataset.manifest["split"] == "train"]
    return {
        name: [
            picture(dataset.images[row])
            for row in train.loc[train["label"] == label, "id"].sample(count, random_state=0)
        ]
        for label, name in enumerate(dataset.class_names)
    }


def shared_charts(results: list[Result], dataset: Dataset, board: dict[str, Any]) -> dict[str, str]:
    """The charts of all models together, as SVG by name; the first of `results` is the best."""
    tests = {result.name: result.test for result in results}
    histories = {result.name: result.history for result in results if len(result.history)}
    best = results[0].name
    return {
        "leaderboard": svg(charts.leaderboard(board)),
        "leaderboard_narrow": svg(charts.leaderboard(board, width=3.8)),
        "roc": svg(charts.roc(tests, dataset.class_names)),
        "reliability": svg(charts.reliability(tests[best], dataset.class_names, best)),
        "curves": svg(charts.validation_curves(histories)),
        "curves_narrow": svg(charts.validation_curves(histories, width=3.8)),
    }


def chapters(
    results: list[Result], networks: dict[str, Classifier], dataset: Dataset, images: dict[str, NDArray[np.uint8]]
) -> list[dict[str, Any]]:
    """A chapter for each approach, ordered by the names of the models, with its prose from the folder chapters/."""
    by_approach: dict[str, list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: result.name):
        section = model_section(result, networks[result.name], dataset, images)
        by_approach.setdefault(result.card.approach, []).append(section)
    return [
        {"approach": approach, "models": models, "prose": f"chapters/{_prose_of(approach)}.html"}
        for approach, models in by_approach.items()
    ]


def _prose_of(approach: str) -> str:
    return approach if (TEMPLATE.parent / "chapters" / f"{approach}.html").exists() else "other"


def build(
    results: list[Result],
    networks: dict[str, Classifier],
    dataset: Dataset,
    params: Params,
    board: dict[str, Any],
    champion: dict[str, Any],
    ablation: dict[str, Any] | None,
) -> str:
    """The report as an HTML page.

    Args:
        results: all results, the best first.
        networks: the rebuilt network of each result, by name.
        board: the content of reports/leaderboard.json.
        champion: the card of the packaged model.
        ablation: the content of benchmarks/ablation.json; None if it is about other classes or recipes.
    """
    train = dataset.manifest[dataset.manifest["split"] == "train"]
    first = {
        name: dataset.images[train.loc[train["label"] == label, "id"].iloc[0]]
        for label, name in enumerate(dataset.class_names)
    }
    with mpl.rc_context(PAPER):  # type: ignore[arg-type]
        drawn = shared_charts(results, dataset, board)
        every_chapter = chapters(results, networks, dataset, first)
    return render(
        TEMPLATE,
        class_names=dataset.class_names,
        convolutions=[convolution(image, name) for name, image in first.items()],
        vertical=VERTICAL.int().tolist(),
        horizontal=VERTICAL.T.int().tolist(),
        samples=samples(dataset),
        counts={
            split: [int(((dataset.manifest["split"] == split) & (dataset.labels == label)).sum()) for label in (0, 1)]
            for split in SPLITS
        },
        chapters=every_chapter,
        ablation=ablation,
        board=board,
        charts=drawn,
        distinct=distinct,
        champion=champion,
        dataset=dataset,
        params=params,
        results=results,
        digests={result.name: result_digest(result.folder) for result in results},
        records={result.name: read_record(result.folder) for result in results},
        applies=known_facts.apply_to(dataset.classes),
    )
