"""A saved view of MLflow's chart page, which shows the lecture: accuracies, curves and large pictures side by side.

MLflow's own arrangement prints all params of a run above each picture, which leaves no room for the picture. MLflow
keeps a saved view as a tag of the experiment: JSON, deflated, in base64 (MLflow 3.17, button *Views*). Each pair of
classes has its own view.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mlflow  # takes seconds, and `make ui` needs only the address

BARS = ("test_accuracy", "train_accuracy", "seconds")
CURVES = ("epoch/validation_accuracy", "epoch/train_accuracy", "epoch/validation_loss")
FILTERS = ("filters", "weights")
ANSWERS = ("results", "mistakes", "curves", "confusion", "reliability", "roc")


def offer(client: mlflow.MlflowClient, experiment_id: str, class_names: list[str], dataset_digest: str) -> None:
    """Save the view of these classes in an experiment, unless the experiment has it: a user's changes to it stay."""
    name = tag(class_names)
    if name not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, name, value(class_names, f"tags.dataset_digest = '{dataset_digest}'"))


def key(class_names: list[str]) -> str:
    """The name of the view in an address, as in `viewStateShareKey=car-or-truck`."""
    return "-or-".join(name.replace(" ", "-") for name in class_names)


def address(experiment_id: str, class_names: list[str] | None, server: str = "http://127.0.0.1:5000") -> str:
    """The address of the view of these classes; with None, of the chart page in MLflow's own arrangement."""
    page = f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    return page if class_names is None else f"{page}&viewStateShareKey={key(class_names)}"


def tag(class_names: list[str]) -> str:
    """The name of the tag that holds the view."""
    return f"mlflow.sharedViewState.{key(class_names)}"


def value(class_names: list[str], runs: str) -> str:
    """The value of the tag: the view of the runs that MLflow's search `runs` returns."""
    maps = [f"response_maps_{name}" for name in class_names]
    charts = [_chart("Accuracy", "BAR", metricKey=name, displayName=name) for name in BARS]
    charts += [
        _chart("Learning", "LINE", metricKey=name, selectedMetricKeys=[name], xAxisKey="step", yAxisKey="metric")
        for name in CURVES
    ]
    for section, names in (("Filters and response maps", [*FILTERS, *maps]), ("Answers", ANSWERS)):
        charts += [
            _chart(section, "IMAGE", imageKeys=[name], step=int(name == "filters"), showRunParams=False)
            for name in names
        ]
    sections = [
        _section("Accuracy", columns=3, cardHeight=260),
        _section("Learning", columns=3, cardHeight=360),
        _section("Filters and response maps", columns=1, cardHeight=430),
        _section("Answers", columns=1, cardHeight=640),
        # MLflow's own sections show everything else of a run. They are closed and at the end.
        *(_section(name, display=False, isGenerated=True) for name in ("Model metrics", "System metrics", "epoch")),
    ]
    state = {
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "searchFilter": runs,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_10_RUNS",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    name = f"{' or '.join(class_names).capitalize()}: the lecture"
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def _chart(section: str, kind: str, **settings: Any) -> dict[str, Any]:
    name = settings.get("metricKey") or settings["imageKeys"][0]
    common = {"uuid": f"{section}-{name}", "type": kind, "metricSectionId": section, "runsCountToCompare": 10}
    return common | {"deleted": False, "isGenerated": False} | settings


def _section(name: str, **settings: Any) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": True, "deleted": False, "isGenerated": False} | settings
