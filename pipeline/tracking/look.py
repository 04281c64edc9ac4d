"""The look at the end of every `dvc repro`: does MLflow show every result? It takes a tenth of a second."""

from __future__ import annotations

import json

from pipeline.base.files import CHAMPION, MODELS, REPORTS
from pipeline.tracking.store import holds


def all_there() -> bool:
    """Whether the local database surely has everything; says so. Without any result there is nothing to have."""
    metrics = sorted((REPORTS / "metrics").glob("*.json"))
    if not metrics and not list(MODELS.glob("*/run.json")):
        print("there are no results yet: `dvc repro` makes them, `dvc pull` fetches them")
        return True
    try:
        results = json.loads((REPORTS / "results.json").read_text())
        records = {name: json.loads((MODELS / name / "run.json").read_text()) for name in results}
        card = CHAMPION / "card.json"
        champion = json.loads(card.read_text())["files"]["model.onnx"]["sha256"] if card.exists() else None
        folders = {str(record["result_digest"]): MODELS / name for name, record in records.items()}
    except (OSError, ValueError, LookupError, TypeError):  # sync itself will say which file is damaged
        return False
    whole = {path.stem for path in metrics} == results.keys() and set(results.values()) == folders.keys()
    if not (whole and holds(folders, champion)):
        return False
    print(f"MLflow has all {len(results)} results and the champion")
    return True
