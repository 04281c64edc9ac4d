"""Writing a result into its run in MLflow, after a training and in a repair. `live` writes the live curves."""

from __future__ import annotations

import time

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from PIL import Image

from pipeline.learning.card import Epoch
from pipeline.results import known_facts
from pipeline.results.metrics import measure
from pipeline.results.result import Result, RunRecord
from pipeline.results.templating import render
from pipeline.tracking.live import curve_points, describe_dataset, flat
from pipeline.tracking.store import DESCRIPTION_TEMPLATE, artifacts, pictures, published_digest, run_files


def publish(client: mlflow.MlflowClient, run_id: str, result: Result, record: RunRecord) -> None:
    """Put metrics, description, files and pictures of a result into a run, in place of older ones.

    The tags `published_digest` and `result_digest` mark the run as complete, so they are written last.
    """
    values = {name: value for name, value in measure(result).model_dump().items() if value is not None}
    timestamp = time.time_ns() // 1_000_000  # MLflow shows the newest value of a metric
    client.log_batch(run_id, metrics=[Metric(name, value, timestamp, 0) for name, value in values.items()])
    client.set_tag(run_id, "mlflow.note.content", describe(result))
    stale = {item.path for item in client.list_artifacts(run_id)} & {"figures", "images"}
    for folder in stale:  # MLflow would show an old picture beside the new one
        get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts(folder)  # type: ignore[no-untyped-call]
    log_files(client, run_id, result, run_files(result.folder))
    client.set_tag(run_id, "published_digest", published_digest(result.folder))
    client.set_tag(run_id, "result_digest", record.result_digest)


def log_files(client: mlflow.MlflowClient, run_id: str, result: Result, names: set[str]) -> None:
    """Put files of a result into a run. `names` are the names of these files in `store.run_files`."""
    for name, path in artifacts(result.folder).items():
        if name == "metrics.json" and name in names:  # its file here has the model's name
            client.log_text(run_id, path.read_text(), name)
        elif name in names:
            client.log_artifact(run_id, str(path), "figures" if name.startswith("figures/") else None)
    for (key, step), picture in pictures(result.name).items():
        if f"images/{key}+step+{step}" in names:
            with Image.open(picture) as image:
                client.log_image(run_id, np.asarray(image.convert("RGB")), key=key, step=step)


def log_training(client: mlflow.MlflowClient, run_id: str, result: Result, record: RunRecord) -> None:
    """Put params, dataset and curves into a run that did not exist while the model trained."""
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in flat(result.card.recipe).items()])
    dataset = describe_dataset(result.card.dataset_digest, result.card.class_names)
    training = DatasetInput(Dataset(**dataset.to_dict()), [InputTag("mlflow.data.context", "training")])
    client.log_inputs(run_id, [training])
    rows = result.history.astype(object).where(result.history.notna(), None).to_dict("records")
    epochs = [Epoch(**{str(name): value for name, value in row.items()}) for row in rows]
    ended = pd.Series([epoch.seconds for epoch in epochs], dtype=float).cumsum() * 1000 + record.started
    points = [
        Metric(name, value, int(timestamp), epoch.epoch)
        for epoch, timestamp in zip(epochs, ended, strict=True)
        for name, value in curve_points(epoch).items()
    ]
    for start in range(0, len(points), 1000):  # MLflow's limit per call
        client.log_batch(run_id, metrics=points[start : start + 1000])


def describe(result: Result) -> str:
    """A run's description in Markdown: its line of the leaderboard, and the lecture's figures if it has any."""
    lecture = known_facts.lecture_of(result.name, result.card.classes)
    curves = len(result.history) > 0
    return render(DESCRIPTION_TEMPLATE, card=result.card, metrics=measure(result), lecture=lecture, curves=curves)
