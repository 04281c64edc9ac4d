"""The registered model of MLflow: each new champion is a version, the alias `champion` is on the one that is served."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import numpy as np
import onnx
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.errors import PipelineError
from pipeline.files import read_json, sha256_of
from pipeline.store import REGISTERED_MODEL
from pipeline.templating import render

CHAMPION = Path("models/champion")
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""What a model server needs beside MLflow itself."""


def register(client: mlflow.MlflowClient, experiment_id: str, run_ids: dict[str, str]) -> str:
    """Make the champion in models/champion a version of the registered model, unless it is one, and give it the alias.

    Args:
        experiment_id: where the model is logged.
        run_ids: the run of each result, by its name.

    Returns:
        What was done, in words.

    Raises:
        PipelineError: the packaged model is missing or damaged.
    """
    card = read_json(CHAMPION / "card.json")
    sha256 = card["files"]["model.onnx"]["sha256"]
    if not (CHAMPION / "model.onnx").exists() or sha256_of(CHAMPION / "model.onnx") != sha256:
        raise PipelineError(f"{CHAMPION}/model.onnx is missing, or not that of its card.json: run `dvc repro`")
    now = _holder_of("champion", client)
    version = _version_of(sha256, client)
    if version is None:
        version = _new_version(client, experiment_id, card, run_ids.get(card["name"]))
    elif version == now:
        return f"registered model {REGISTERED_MODEL}: `champion` is on version {version} already"
    replaced = None
    if now is not None and client.get_model_version(REGISTERED_MODEL, now).tags.get("onnx_sha256") != sha256:
        replaced = now
        client.set_registered_model_alias(REGISTERED_MODEL, "previous", now)
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)
    before = f", `previous` on version {now}" if replaced else ""
    return f"registered model {REGISTERED_MODEL}: `champion` is on version {version}, {card['name']}{before}"


def _holder_of(alias: str, client: mlflow.MlflowClient) -> str | None:
    """The version that has an alias."""
    try:
        return str(client.get_model_version_by_alias(REGISTERED_MODEL, alias).version)
    except MlflowException:
        return None


def _version_of(sha256: str, client: mlflow.MlflowClient) -> str | None:
    """The version of this ONNX file, its newest if there are several; one whose files are gone does not count."""
    versions = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    for version in sorted(versions, key=lambda version: int(version.version), reverse=True):
        if client.get_model_version(REGISTERED_MODEL, version.version).tags.get("onnx_sha256") == sha256:
            try:
                mlflow.models.get_model_info(f"models:/{REGISTERED_MODEL}/{version.version}")
            except (MlflowException, OSError):
                continue
            return str(version.version)
    return None


def _new_version(client: mlflow.MlflowClient, experiment_id: str, card: dict[str, Any], run_id: str | None) -> str:
    """Log the ONNX file as a model of its run and register it."""
    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)  # it would tell of every upload
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3), "images")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1,), "probability")]),
    )
    mlflow.set_experiment(experiment_id=experiment_id)
    info = Model.log(
        artifact_path=None,
        name=card["name"],
        flavor=mlflow.onnx,
        run_id=run_id,
        onnx_model=onnx.load(CHAMPION / "model.onnx"),
        signature=signature,
        input_example={"images": np.zeros((1, 32, 32, 3), np.uint8)},
        pip_requirements=[f"{package}=={card['versions'][package]}" for package in RUNTIME],
        metadata=card,
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    with suppress(MlflowException):  # it is there already
        client.create_registered_model(
            REGISTERED_MODEL, description="The champion of the leaderboard, version by version."
        )
    tags = {"onnx_sha256": card["files"]["model.onnx"]["sha256"], "dataset_digest": card["dataset_digest"]}
    version = client.create_model_version(
        REGISTERED_MODEL,
        source=info.model_uri,
        run_id=run_id,
        tags=tags | {"model": card["name"]},
        description=render("version.md", card=card),
    )
    return str(version.version)
