"""The page at /ui in a real Chromium."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import open_page, overflow, pictures_shown, screenshot
from tests.hostile import photo, saved
from tests.serving import Serving, environment, make_service

DROP = """([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const how = { dataTransfer: data, bubbles: true, cancelable: true };
  document.querySelector("#drop").dispatchEvent(new DragEvent("drop", how));
}"""
PASTE = """([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory, small_dataset):
    folder = make_service(tmp_path_factory.mktemp("service"), small_dataset)
    with Serving(folder, environment(tmp_path_factory.mktemp("home"), CAR_OR_TRUCK_WORKERS="1")) as url:
        yield url


def file(name: str, content: bytes, type: str = "image/png") -> list[str]:
    return [name, type, base64.b64encode(content).decode()]


def tab_to(page, selector: str) -> None:
    """Press Tab until the focus is on an element that matches the selector, or inside one."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.closest(selector) !== null", selector):
            return
    pytest.fail(f"twenty times Tab did not reach {selector}")


@pytest.mark.parametrize(
    ("width", "scheme", "how"), [(1100, "light", DROP), (1100, "dark", PASTE), (390, "light", DROP)]
)
def test_a_photo_gets_its_answer_and_a_text_file_its_sentence(url, width, scheme, how):
    with open_page(width, 1100, scheme) as (page, seen):
        page.goto(f"{url}/ui/")
        page.wait_for_selector("#card:not([hidden])")
        page.evaluate(how, file("lorry.jpg", saved(photo(200), "JPEG"), "image/jpeg"))
        page.wait_for_selector(".answer .label")
        label = page.inner_text(".answer .label")
        assert label.split(",")[0] in {"car", "truck"}
        assert "%" in label
        assert "lorry.jpg, 200×200" in page.inner_text(".answer .filename")
        bar, share = (page.locator(part).first.bounding_box()["width"] for part in (".bar", ".share"))
        car = float(page.inner_text(".answer .first").removeprefix("car ").removesuffix(" %"))
        assert share / bar == pytest.approx(car / 100, abs=0.01)
        page.click(".explain")
        page.wait_for_selector(".explanation:not([hidden]) img")
        assert page.evaluate("document.querySelector('.answer .pixels').naturalWidth") == 32
        page.evaluate(how, file("notes.txt", b"hello", "text/plain"))
        page.wait_for_selector(".fault")
        assert page.inner_text(".fault") == "notes.txt is not a PNG, JPEG, WEBP, BMP or GIF image."
        assert overflow(page) <= 0
        assert pictures_shown(page) == page.evaluate("document.images.length")
        screenshot(page, f"service-{width}-{scheme}", full_page=True)
        refused = [error for error in seen.errors if "422" not in error]  # the browser itself logs each refusal
        assert not refused
        assert not seen.foreign_requests


def test_a_sample_is_classified_by_the_keyboard_alone(url):
    with open_page() as (page, seen):
        page.goto(f"{url}/ui/")
        page.wait_for_selector("#sample-list button")
        tab_to(page, "#sample-list")
        page.keyboard.press("Enter")
        page.wait_for_selector(".answer .label")
        assert page.inner_text(".answer .filename") == "car-1.png, 32×32"
        assert "The newest answer" in page.inner_text("#status"), "a screen reader reads it out"
        assert not seen.errors


def test_a_photo_is_chosen_and_explained_by_the_keyboard_alone(url):
    with open_page() as (page, seen):
        page.on("filechooser", lambda _: None)  # from here on the test handles file choosers, not the desktop
        page.goto(f"{url}/ui/")
        page.wait_for_selector("#sample-list button")
        tab_to(page, "#pick")
        with page.expect_file_chooser() as choosing:
            page.keyboard.press("Enter")
        choosing.value.set_files({"name": "lorry.png", "mimeType": "image/png", "buffer": saved(photo(), "PNG")})
        page.wait_for_selector(".answer .label")
        tab_to(page, ".explain")
        page.keyboard.press("Enter")
        page.wait_for_selector(".explanation:not([hidden]) img")
        assert page.evaluate("document.activeElement.matches('.explanation')"), "a screen reader reads on from here"
        assert not seen.errors


def test_chosen_photos_are_answered_one_after_another(url, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)
    with open_page() as (page, seen):
        page.goto(f"{url}/ui/")
        page.set_input_files("#pick", paths)
        expect(page.locator(".answer")).to_have_count(3)
        expect(page.locator("#status")).to_have_text("3 photos done")
        assert not seen.errors


def test_the_card_and_the_names_are_the_models(url):
    with open_page() as (page, _):
        page.goto(f"{url}/ui/")
        page.wait_for_selector("#card:not([hidden])")
        assert page.title() == "Car or truck?"
        card = page.inner_text("#card")
        assert "95 % interval" in card
        assert "Individual people" in card
        assert "97.68 %" in card


def test_the_page_says_that_the_server_is_gone(url):
    with open_page() as (page, _):
        page.goto(f"{url}/ui/")
        page.wait_for_selector("#card:not([hidden])")
        page.route("**/predict**", lambda route: route.abort())
        page.evaluate(DROP, file("a.png", saved(photo(), "PNG")))
        page.wait_for_selector(".fault")
        assert page.inner_text(".fault") == "The server does not answer. Is it still running?"


def test_the_page_shows_a_refusal_that_it_gets_while_it_loads(url):
    with open_page() as (page, _):
        page.route("**/model", lambda route: route.fulfill(status=429, json={"error": "Try again.", "code": "busy"}))
        page.goto(f"{url}/ui/")
        page.wait_for_selector(".fault")
        assert page.inner_text(".fault") == "Try again."


def test_the_policy_keeps_foreign_content_out(url):
    with open_page() as (page, seen):
        response = page.goto(f"{url}/ui/")
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.evil = 1\">')")
        page.wait_for_timeout(300)
        assert page.evaluate("window.evil === undefined")
        assert not seen.foreign_requests


def test_the_page_about_the_api_loads_nothing_from_other_servers(url):
    with open_page() as (page, seen):
        page.goto(f"{url}/docs")
        page.wait_for_selector(".opblock")
        assert page.locator(".opblock").count() >= 7
        screenshot(page, "service-docs", full_page=True)
        assert not seen.errors
        assert not seen.foreign_requests
