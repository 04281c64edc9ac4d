"""MLflow's registered model. Each new champion becomes a version; the alias `champion` is on the served version."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.base.errors import PipelineError
from pipeline.base.files import CHAMPION, read_json, sha256_of
from pipeline.results.templating import render
from pipeline.tracking.store import REGISTERED_MODEL

VERSION_TEMPLATE = Path(__file__).with_name("version.md")
RUNTIME = ("numpy", "onnx", "onnxruntime")
"""The packages that a model server needs beside MLflow."""


SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3), "images")]),
    outputs=Schema([TensorSpec(np.dtype("float32"), (-1,), "probability")]),
)
"""The input and the output of the champion's ONNX file."""


def register(client: mlflow.MlflowClient, experiment_id: str, run_ids: dict[str, str]) -> str:
    """Make models/champion a version of the registered model, unless it is one already, and put the alias on it.

    Args:
        experiment_id: the experiment that the model is logged in.
        run_ids: the run of each result, by the SHA-256 of its weights.

    Returns:
        A sentence about what was done.

    Raises:
        PipelineError: the packaged model is missing or damaged.
    """
    card = read_json(CHAMPION / "card.json")
    sha256 = card["files"]["model.onnx"]["sha256"]
    if not (CHAMPION / "model.onnx").exists() or sha256_of(CHAMPION / "model.onnx") != sha256:
        raise PipelineError(f"{CHAMPION}/model.onnx is missing, or differs from its card.json: run `dvc repro`")
    registered = client.search_registered_models(f"name = '{REGISTERED_MODEL}'")
    if not registered:
        client.create_registered_model(
            REGISTERED_MODEL, description="The champion of the leaderboard, version by version."
        )
    served = str(registered[0].aliases["champion"]) if registered and "champion" in registered[0].aliases else None
    version, lost = _version_of(sha256, client), None
    if version is not None and not _has_files(version, client):
        version, lost = None, version
    if version is None:
        version = _new_version(client, experiment_id, card, run_ids.get(card["weights_sha256"]))
    elif version == served:
        return f"registered model {REGISTERED_MODEL}: `champion` is on version {version} already"
    replaced = None
    if served is not None and _sha256_of_version(served, client) != sha256 and _has_files(served, client):
        replaced = served
        client.set_registered_model_alias(REGISTERED_MODEL, "previous", served)
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)
    before = f", `previous` on version {served}" if replaced else ""
    if lost:  # deleted last, so that the alias is always on a version
        client.delete_model_version(REGISTERED_MODEL, lost)
        before += f"; version {lost} was deleted, because its files were lost"
    return f"registered model {REGISTERED_MODEL}: `champion` is on version {version}, {card['name']}{before}"


def _version_of(sha256: str, client: mlflow.MlflowClient) -> str | None:
    """The newest version with this ONNX file; None if no version has it."""
    versions = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    for version in sorted(versions, key=lambda version: int(version.version), reverse=True):
        if _sha256_of_version(version.version, client) == sha256:
            return str(version.version)
    return None


def _sha256_of_version(version: str, client: mlflow.MlflowClient) -> str | None:
    """The digest of the ONNX file of a version."""
    digest: str | None = client.get_model_version(REGISTERED_MODEL, version).tags.get("onnx_sha256")
    return digest


def _has_files(version: str, client: mlflow.MlflowClient) -> bool:
    """Whether the files of a version still exist."""
    model_id = str(client.get_model_version(REGISTERED_MODEL, version).source).removeprefix("models:/")
    return "MLmodel" in {item.path for item in client.list_logged_model_artifacts(model_id)}


def _new_version(client: mlflow.MlflowClient, experiment_id: str, card: dict[str, Any], run_id: str | None) -> str:
    """Log the ONNX file as a model of its run and register it."""
    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)  # it would print a line for every upload
    mlflow.set_experiment(experiment_id=experiment_id)
    info = Model.log(
        artifact_path=None,
        name=card["name"],
        flavor=mlflow.onnx,
        run_id=run_id,
        onnx_model=onnx.load(CHAMPION / "model.onnx"),
        signature=SIGNATURE,
        input_example={"images": np.zeros((1, 32, 32, 3), np.uint8)},
        pip_requirements=[f"{package}=={card['versions'][package]}" for package in RUNTIME],
        metadata=card,
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    tags = {"onnx_sha256": card["files"]["model.onnx"]["sha256"], "dataset_digest": card["dataset_digest"]}
    version = client.create_model_version(
        REGISTERED_MODEL,
        source=info.model_uri,
        run_id=run_id,
        model_id=info.model_id,  # a server refuses a version without it
        tags=tags | {"model": card["name"]},
        description=render(VERSION_TEMPLATE, card=card),
    )
    return str(version.version)
