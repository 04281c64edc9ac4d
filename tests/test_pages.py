"""What people see: MLflow's pages over the runs, and the report, in a real browser."""

from __future__ import annotations

import re
import shutil

import pytest
import requests

from pipeline.tracking import chart_view, sync
from pipeline.tracking import connection as tracking
from tests import projects
from tests.browser import Seen, chromium_or_skip, open_page, overflow, pictures_shown, screenshot
from tests.mlflow_server import running_mlflow
from tests.projects import MODELS
from tools.chromium import MLFLOW_WITHOUT_CHAT

SECONDS = 60_000
TABLES_CUT = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_dataset):
    folder = tmp_path_factory.mktemp("project")
    projects.make(folder, small_dataset)
    return folder


@pytest.fixture(scope="module")
def ui(project):
    """The address of a bare `mlflow ui` in the project."""
    chromium_or_skip()
    with running_mlflow("ui", folder=project) as address:
        yield address


def experiment(ui: str) -> str:
    answer = requests.get(
        f"{ui}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": "car-or-truck"}, timeout=20
    )
    return answer.json()["experiment"]["experiment_id"]


def own_errors(seen: Seen) -> list[str]:
    """The errors of one of MLflow's pages, except that MLflow's local server lacks an address that its pages use."""
    return [error for error in seen.errors if "404 (Not Found)" not in error]


def run_ids(ui: str) -> dict[str, str]:
    body = {"experiment_ids": [experiment(ui)]}
    answer = requests.post(f"{ui}/api/2.0/mlflow/runs/search", json=body, timeout=20).json()
    return {run["info"]["run_name"]: run["info"]["run_id"] for run in answer["runs"]}


def test_the_chart_view_shows_accuracies_curves_and_pictures_side_by_side(ui):
    with open_page(1500, 4200) as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(f"{ui}/#/experiments/{experiment(ui)}/runs?workflowType=machine_learning&compareRunsMode=CHART")
        for name in MODELS:
            page.get_by_text(name, exact=True).first.wait_for(timeout=SECONDS)
        for chart in (
            "epoch/validation_loss",
            "test_accuracy",
            "confusion",
            "mistakes",
            "results",
            "weights",
            "filters",
        ):
            page.get_by_text(chart, exact=True).first.wait_for(timeout=SECONDS)
        page.wait_for_function("document.images.length > 8", timeout=SECONDS)
        page.wait_for_function(
            "[...document.images].every(image => image.complete && image.naturalWidth > 0)", timeout=SECONDS
        )
        screenshot(page, "mlflow-charts")
        assert pictures_shown(page) > 8
    assert own_errors(seen) == []


def test_sync_rebuilds_the_runs_on_a_server(ui, project, tmp_path, monkeypatch):
    """Over HTTP and into another experiment; the registered model already exists there and keeps its one version."""
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns"))
    for record in copy.glob("models/*/run.json"):
        record.write_text(record.read_text().replace('"experiment": "car-or-truck"', '"experiment": "elsewhere"'))
    with projects.working_in(copy), monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", ui)
        for _ in range(2):
            assert not sync.sync(sync.result_folders())
        client, experiment_id = tracking.connect("elsewhere")
        runs = client.search_runs([experiment_id])
        assert sorted(run.info.run_name for run in runs) == sorted(MODELS)
        for run in runs:
            assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"figures", "images", "card.json"}
        assert len(client.search_model_versions("name = 'car-or-truck'")) == 1
        assert not (copy / "mlflow.db").exists()
    assert sorted(run_ids(ui)) == sorted(MODELS), "the runs of the first experiment stay as they are"


def test_a_run_page_shows_its_accuracy_and_dataset(ui):
    with open_page() as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(f"{ui}/#/experiments/{experiment(ui)}/runs/{run_ids(ui)['cnn-tuned']}?workflowType=machine_learning")
        page.get_by_text("The lecture's CNN, in colour").first.wait_for(timeout=SECONDS)
        page.get_by_text(re.compile("^car_truck")).first.wait_for(timeout=SECONDS)
        page.get_by_text("test_accuracy", exact=True).first.wait_for(timeout=SECONDS)
        screenshot(page, "mlflow-run")
    assert own_errors(seen) == []


SEEN_HEIGHTS = """[...document.images].map(image => {
  const own = image.getBoundingClientRect();
  let [top, bottom] = [own.top, own.bottom];
  for (let around = image.parentElement; around; around = around.parentElement)
    if (getComputedStyle(around).overflowY !== "visible") {
      const box = around.getBoundingClientRect();
      [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
    }
  return [image.alt || image.src, bottom - top, own.height];
})"""
"""For each picture: its name, how much of its height the boxes around it leave visible, and its height."""


def test_the_view_of_the_lecture_shows_filters_maps_and_mistakes_large_enough_to_see(ui):
    with open_page(1500, 7000) as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(chart_view.address(experiment(ui), ["car", "truck"], ui))
        page.get_by_role("button", name="Car or truck: the lecture").first.wait_for(timeout=SECONDS)
        names = ("filters", "weights", "response_maps_car", "response_maps_truck", "results", "mistakes", "curves")
        for name in names:
            page.get_by_text(name, exact=True).first.wait_for(timeout=SECONDS)
        page.wait_for_function("document.images.length >= 9", timeout=SECONDS)
        page.wait_for_function(
            "[...document.images].every(image => image.complete && image.naturalWidth > 0)", timeout=SECONDS
        )
        screenshot(page, "mlflow-lecture")
        heights = page.evaluate(SEEN_HEIGHTS)
        assert not page.get_by_text("No image logged at this step").count(), "the learned filters of every network"
        assert not [name for name, shown, height in heights if shown < 0.9 * height]
        assert sum(shown > 100 for _, shown, _ in heights) >= 9, "large enough to see"
    assert own_errors(seen) == []


def test_the_image_grid_of_a_run_has_its_filters_with_a_slider_from_before_to_after(ui):
    with open_page(1400, 3600) as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(
            f"{ui}/#/experiments/{experiment(ui)}/runs/{run_ids(ui)['cnn-tuned']}/model-metrics"
            "?workflowType=machine_learning"
        )
        names = ("filters", "response_maps_car", "response_maps_truck", "mistakes", "results", "confusion", "roc")
        for name in names:
            page.get_by_text(name, exact=True).first.wait_for(timeout=SECONDS)
        page.wait_for_function(f"document.images.length >= {len(names)}", timeout=SECONDS)
        last = page.locator("[aria-valuemax], input[type=number]").evaluate_all(
            "inputs => inputs.map(input => input.getAttribute('aria-valuemax') ?? input.max)"
        )
        assert "1" in last, "before and after"
        screenshot(page, "mlflow-images")
    assert own_errors(seen) == []


def test_two_runs_compare(ui):
    runs = ",".join(f'"{run_id}"' for run_id in run_ids(ui).values())
    with open_page() as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(f'{ui}/#/compare-runs?runs=[{runs}]&experiments=["{experiment(ui)}"]')
        for name in MODELS:
            page.get_by_text(name, exact=True).first.wait_for(timeout=SECONDS)
        page.get_by_text("test_accuracy", exact=True).first.wait_for(timeout=SECONDS)
        page.locator(".js-plotly-plot .parcoords, .js-plotly-plot .main-svg").first.wait_for(timeout=SECONDS)
        screenshot(page, "mlflow-compare")
    assert own_errors(seen) == []


def test_the_registered_model_has_a_champion(ui):
    with open_page() as (page, seen):
        page.add_init_script(MLFLOW_WITHOUT_CHAT)
        page.goto(f"{ui}/#/models/car-or-truck?workflowType=machine_learning")
        page.get_by_text(re.compile("champion")).first.wait_for(timeout=SECONDS)
        screenshot(page, "mlflow-model")
    assert own_errors(seen) == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("report", 1200, "light"), ("report-phone", 360, "light"), ("report-dark", 1200, "dark")],
)
def test_the_report_opens_by_itself(project, name, width, scheme):
    path = project / "reports/report.html"
    with open_page(width, 900, scheme) as (page, seen):
        page.goto(path.as_uri())
        screenshot(page, name, full_page=True)
        assert pictures_shown(page) == page.evaluate("document.images.length") > 50
        assert overflow(page) <= 0
        assert not page.evaluate(TABLES_CUT), "people can read them without scrolling sideways"
        titles = page.get_by_role("heading", level=2).all_text_contents()
    assert not seen.errors
    assert not seen.foreign_requests
    assert [title[0] for title in titles] == list("123456")
    assert titles[2:4] == ["3. Approach 1: least squares", "4. Approach 2: a convolutional network"]
    assert path.stat().st_size < 5_000_000


def test_the_report_prints_on_paper_with_everything_on_it(project, tmp_path):
    with open_page(1200, 900, "dark") as (page, _):
        page.goto((project / "reports/report.html").as_uri())
        page.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
        page.emulate_media(media="print", color_scheme="light")
        page.set_viewport_size({"width": 700, "height": 1000})  # A4 without its margins
        assert overflow(page) <= 0
        assert not page.evaluate(TABLES_CUT)
        screenshot(page, "report-print", full_page=True)
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 40


def test_every_picture_of_the_report_has_a_text_for_people_who_cannot_see_it(project):
    with open_page() as (page, _):
        page.goto((project / "reports/report.html").as_uri())
        assert page.evaluate("[...document.images].filter(image => !image.alt).length") == 0
