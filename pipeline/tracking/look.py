"""The quick check at the end of every `dvc repro`: does MLflow show every result? It takes a tenth of a second."""

from __future__ import annotations

import json

from pipeline.base.files import CHAMPION, METRICS, MODELS, RESULTS
from pipeline.tracking.store import holds


def all_there() -> bool:
    """Whether the local database certainly has every result; if so, prints a line. True if no results exist yet."""
    metrics = sorted(METRICS.glob("*.json"))
    if not metrics and not list(MODELS.glob("*/run.json")):
        print("no results exist yet: `dvc repro` makes them, `dvc pull` fetches them")
        return True
    try:
        results = json.loads(RESULTS.read_text())
        records = {name: json.loads((MODELS / name / "run.json").read_text()) for name in results}
        card = CHAMPION / "card.json"
        champion = json.loads(card.read_text())["files"]["model.onnx"]["sha256"] if card.exists() else None
        folders = {str(record["result_digest"]): MODELS / name for name, record in records.items()}
    except (OSError, ValueError, LookupError, TypeError):  # `sync` says which file is damaged
        return False
    whole = {path.stem for path in metrics} == results.keys() and set(results.values()) == folders.keys()
    if not (whole and holds(folders, champion)):
        return False
    print(f"MLflow has all {len(results)} results and the champion")
    return True
