"""The lecture told again with this run's own pictures and numbers, as one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import charts, figures, known_facts
from pipeline.car_truck import SPLITS, Dataset
from pipeline.evaluation import correct, wilson
from pipeline.html_pictures import PAPER, Picture, coloured, file_picture, mosaic, picture, svg
from pipeline.leaderboard import distinct
from pipeline.models import Classifier, LeastSquares, LectureCnn, grayscale
from pipeline.params import Params
from pipeline.results import Result, read_record, result_digest
from pipeline.templating import render

VERTICAL = torch.tensor([[0.0, -1, 1]] * 3)
"""The lecture's filter for vertical edges; transposed, it is the one for horizontal edges."""


@dataclass(frozen=True)
class Layer:
    """One box of the architecture diagram; `shape` is H × W × C, or the number of neurons."""

    name: str
    shape: tuple[int, ...]
    parameters: int = 0


def convolution(image: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """Section 1 for one image uint8 `[32, 32, 3]`: edge filters, a 3-d filter and max pooling on it."""
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
    """An image uint8 `[H, W, 3]` of which one channel alone is lit."""
    return np.where(np.arange(3) == place, image, 0).astype(np.uint8)


def respond(channels: Tensor, kernel: Tensor) -> Tensor:
    """The response map `[H - 2, W - 2]` of a filter `[C, 3, 3]` slid over `[C, H, W]`."""
    return F.conv2d(channels[None], kernel[None])[0, 0]


@torch.inference_mode()
def architecture(model: LectureCnn) -> list[Layer]:
    """The lecture's network layer by layer, its shapes taken from a pass over an empty image."""
    first, second, third = model.response_maps(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).values()
    channels = model.conv1.in_channels

    def convolved(layer: nn.Conv2d, maps: Tensor) -> Layer:
        side = layer.kernel_size[0]
        return Layer(f"conv {side}×{side}, ReLU", _shape(maps), _count(layer))

    return [
        Layer("image", (32, 32, channels)),
        convolved(model.conv1, first),
        Layer("max pool 2×2", _shape(F.max_pool2d(first, 2))),
        convolved(model.conv2, second),
        Layer("max pool 2×2", _shape(F.max_pool2d(second, 2))),
        convolved(model.conv3, third),
        Layer("flatten, dropout", (third.numel(),)),
        Layer("dense, ReLU", (model.dense.out_features,), _count(model.dense)),
        Layer("logit, sigmoid", (1,), _count(model.logit)),
    ]


def _shape(maps: Tensor) -> tuple[int, ...]:
    _, channels, height, width = maps.shape
    return height, width, channels


def _count(layer: nn.Module) -> int:
    return sum(weight.numel() for weight in layer.parameters())


def shown_answers(rows: pd.DataFrame, dataset: Dataset) -> list[dict[str, Any]]:
    """Images of a predictions table with truth, prediction and its probability."""
    return [
        {"truth": truth, "predicted": predicted, "sure": sure, "right": truth == predicted, "image": picture(image)}
        for (truth, predicted, sure), image in zip(
            figures.verdicts(rows, dataset.class_names), dataset.images[rows["id"]], strict=True
        )
    ]


@torch.inference_mode()
def model_section(result: Result, dataset: Dataset, images: dict[str, NDArray[np.uint8]]) -> dict[str, Any]:
    """What the report shows of one model, whatever it is.

    Args:
        images: one image uint8 `[32, 32, 3]` of each class, by its name.
    """
    model = result.model()
    test = result.test
    folder = result.folder / "figures"
    filters = {when: folder / f"{name}.png" for when, name in (("before", "filters-epoch-0"), ("after", "filters"))}
    both = torch.from_numpy(np.stack(list(images.values())))
    layers = []
    for layer, maps in model.response_maps(both).items():
        # Of each image its own: a filter that answers to one of them is often silent to the other.
        chosen = [answer[figures.most_varied(answer[None], 16)] for answer in maps]
        drawn = {name: mosaic(answer) for name, answer in zip(images, chosen, strict=True)}
        texts = [figures.shown_of(len(answer), maps, 16) for answer in chosen]
        layers.append({"name": layer, "texts": dict(zip(images, texts, strict=True)), "maps": drawn})
    return {
        "name": result.card.name,
        "title": result.card.title,
        "metrics": result.metrics,
        "lecture": known_facts.lecture_of(result.card.name, dataset.classes),
        "weights": _pixel_weights(model),
        "architecture": architecture(model) if isinstance(model, LectureCnn) else [],
        "filters": {when: file_picture(path) for when, path in filters.items() if path.exists()},
        "layers": layers,
        **_curves(result),
        "answers": shown_answers(test.sample(min(20, len(test)), random_state=0), dataset),
        "mistakes": shown_answers(figures.most_confident_mistakes(test, 10), dataset),
        "mistakes_count": int((~correct(test)).sum()),
        "card": result.card,
    }


def _curves(result: Result) -> dict[str, str]:
    """The training curves, for wide pages and for phones; empty where nothing was trained by epochs."""
    if not len(result.history):
        return {"curves": "", "curves_narrow": ""}
    wide, narrow = (
        charts.curves(result.history, result.card.name, smoothed=result.smoothed, narrow=narrow)
        for narrow in (False, True)
    )
    return {"curves": svg(wide), "curves_narrow": svg(narrow)}


def _pixel_weights(model: Classifier) -> Picture | None:
    """The weight of each pixel, of a model that has one."""
    if not isinstance(model, LeastSquares):
        return None
    return coloured(model.weights[:-1].reshape(32, 32).detach().numpy(), signed=True)


def frozen_interval(board: dict[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of the test accuracy of the head on frozen layers."""
    for model in board["models"]:
        if (share := model["frozen_test_accuracy"]) is not None:
            return wilson(round(share * board["images"]["test"]), board["images"]["test"])
    return None


def samples(dataset: Dataset, count: int = 12) -> dict[str, list[Picture]]:
    """Training images of each class, drawn at random."""
    train = dataset.manifest[dataset.manifest["split"] == "train"]
    return {
        name: [
            picture(dataset.images[row])
            for row in train.loc[train["label"] == label, "id"].sample(count, random_state=0)
        ]
        for label, name in enumerate(dataset.class_names)
    }


def shared_charts(results: list[Result], dataset: Dataset, board: dict[str, Any]) -> dict[str, str]:
    """The charts of all models together, as SVG by name; `results` are best first."""
    tests = {result.card.name: result.test for result in results}
    histories = {r.card.name: r.history for r in results if len(r.history)}
    best = results[0].card.name
    return {
        "leaderboard": svg(charts.leaderboard(board)),
        "leaderboard_narrow": svg(charts.leaderboard(board, width=3.8)),
        "roc": svg(charts.roc(tests, dataset.class_names)),
        "reliability": svg(charts.reliability(tests[best], dataset.class_names, best)),
        "curves": svg(charts.validation_curves(histories)),
        "curves_narrow": svg(charts.validation_curves(histories, width=3.8)),
    }


def build(
    results: list[Result],
    dataset: Dataset,
    params: Params,
    board: dict[str, Any],
    champion: dict[str, Any],
    ablation: dict[str, Any] | None,
) -> str:
    """The page.

    Args:
        results: best first.
        board: reports/leaderboard.json.
        champion: the card of the packaged model.
        ablation: benchmarks/ablation.json, where it belongs to these classes and recipes.
    """
    train = dataset.manifest[dataset.manifest["split"] == "train"]
    first = {
        name: dataset.images[train.loc[train["label"] == label, "id"].iloc[0]]
        for label, name in enumerate(dataset.class_names)
    }
    sections: dict[str, list[dict[str, Any]]] = {}
    with mpl.rc_context(PAPER):  # type: ignore[arg-type]
        drawn = shared_charts(results, dataset, board)
        for result in sorted(results, key=lambda result: result.card.name):
            kind = sections.setdefault(result.card.architecture.kind, [])
            kind.append(model_section(result, dataset, first))
    return render(
        "report.html",
        class_names=dataset.class_names,
        convolutions=[convolution(image, name) for name, image in first.items()],
        vertical=VERTICAL.int().tolist(),
        horizontal=VERTICAL.T.int().tolist(),
        samples=samples(dataset),
        counts={
            split: [int(((dataset.manifest["split"] == split) & (dataset.labels == label)).sum()) for label in (0, 1)]
            for split in SPLITS
        },
        least_squares=sections.get("least_squares", []),
        cnns=sections.get("lecture_cnn", []),
        transfers=sections.get("transfer", []),
        ablation=ablation,
        board=board,
        charts=drawn,
        distinct=distinct,
        frozen_interval=frozen_interval(board),
        champion=champion,
        dataset=dataset,
        params=params,
        results=results,
        digests={result.card.name: result_digest(result.folder) for result in results},
        records={result.card.name: read_record(result.folder) for result in results},
        applies=known_facts.apply_to(dataset.classes),
    )
