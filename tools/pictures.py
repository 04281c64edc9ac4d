"""Make the pictures of README.md from the results that are here: `make readme` (needs Chromium)."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import requests
from playwright.sync_api import sync_playwright

from pipeline.served import free_port, running, serving

PICTURES = Path("docs/pictures")
FIGURES = {
    "filters.png": "models/cnn-tuned/figures/filters.png",
}
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false'); " \
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"  # fmt: skip


def mlflow_charts(path: Path) -> None:
    """Take a picture of MLflow's chart view over all runs."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "mlflow"), "ui", "--workers", "1", "--port", str(port)]
    with running(command, f"{address}/health", dict(os.environ)):
        query = {"experiment_name": "car-or-truck"}
        found = requests.get(f"{address}/api/2.0/mlflow/experiments/get-by-name", query, timeout=20).json()
        experiment = found["experiment"]["experiment_id"]
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1500, "height": 4200})
            page.add_init_script(NO_ASSISTANT)
            view = "workflowType=machine_learning&compareRunsMode=CHART"
            page.goto(f"{address}/#/experiments/{experiment}/runs?{view}")
            page.get_by_text("filters", exact=True).first.wait_for(timeout=60_000)
            # The curves folded away, accuracies and pictures come into view.
            section = page.get_by_test_id("experiment-view-compare-runs-section-header")
            section.filter(has_text=re.compile(r"^epoch\s*\(")).click()
            page.wait_for_timeout(5000)  # its charts move into place
            page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1500, "height": 1060})
            browser.close()


def service_page(path: Path) -> None:
    """Take a picture of the service's page with a sample answered and explained."""
    with serving() as address, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 860, "height": 900})
        page.goto(f"{address}/ui/")
        page.locator("#sample-list button").nth(5).click()
        page.locator(".explain").click()
        page.locator(".overlay").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=path, full_page=True)
        browser.close()


def main() -> None:
    """Fill docs/pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, source in FIGURES.items():
        shutil.copy2(source, PICTURES / name)
    service_page(PICTURES / "page.png")
    mlflow_charts(PICTURES / "mlflow.png")


if __name__ == "__main__":
    main()
