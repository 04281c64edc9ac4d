"""Make the pictures of README.md from the results in this folder: `make readme` (needs Chromium)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pipeline.base.errors import PipelineError, run_as_command
from pipeline.base.params import load_params
from pipeline.commands.served import free_port, running, serving
from pipeline.results.result import read_record
from pipeline.tracking import chart_view
from pipeline.tracking.connection import connect
from tools.chromium import MLFLOW_WITHOUT_CHAT, blank_page, chromium

PICTURES = Path("docs/pictures")
FILTERS = Path("reports/figures/cnn-tuned/filters.png")


def mlflow_charts(path: Path) -> None:
    """Take a picture of MLflow's chart view; it shows the runs of the results in this folder."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the local database, which `mlflow ui` shows
    records = [read_record(file.parent) for file in sorted(Path("models").glob("*/run.json"))]
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "mlflow"), "ui", "--workers", "1", "--port", str(port)]
    with running(command, f"{address}/health", dict(os.environ)), blank_page(1500, 4200) as page:
        client, experiment = connect(records[0].experiment)
        runs = [client.search_runs([experiment], f"tags.result_digest = '{each.result_digest}'") for each in records]
        if not all(runs):
            raise PipelineError("a result has no run in MLflow: `make sync` brings it in")
        ids = ", ".join(f"'{same[0].info.run_id}'" for same in runs)
        view = chart_view.value(load_params().data.class_names, f"attributes.run_id IN ({ids})")
        client.set_experiment_tag(experiment, chart_view.tag(["picture"]), view)
        try:
            page.add_init_script(MLFLOW_WITHOUT_CHAT)
            page.goto(chart_view.address(experiment, ["picture"], address))
            page.get_by_text("filters", exact=True).first.wait_for(timeout=60_000)
            page.wait_for_timeout(8000)  # until charts and pictures are drawn
        finally:
            client.delete_experiment_tag(experiment, chart_view.tag(["picture"]))
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1500, "height": 1480})


def service_page(path: Path) -> None:
    """Take a picture of the service's page; it shows the answer to a sample and its explanation."""
    with serving() as address, blank_page(860, 900) as page:
        page.goto(f"{address}/ui/")
        page.locator("#sample-list button").nth(5).click()
        page.locator(".explain").click()
        page.locator(".overlay").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=path, full_page=True)


def main() -> None:
    """Fill docs/pictures."""
    if chromium() is None:
        raise PipelineError("the pictures are taken in a browser: install Debian's `chromium`, or Chrome")
    if not FILTERS.exists():
        raise PipelineError(f"{FILTERS} is missing: `dvc repro` makes it")
    PICTURES.mkdir(parents=True, exist_ok=True)
    shutil.copy2(FILTERS, PICTURES / "filters.png")
    service_page(PICTURES / "page.png")
    mlflow_charts(PICTURES / "mlflow.png")


if __name__ == "__main__":
    run_as_command(main)
