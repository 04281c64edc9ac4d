"""Opens pages in the system's Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page

from tests.conftest import ROOT
from tools.chromium import blank_page, chromium

SCREENSHOTS = ROOT / "reports" / "screenshots"


class Seen:
    """The errors of a page and its requests to other servers."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []


def chromium_or_skip() -> None:
    """Skip the test if Chromium is missing; in CI, fail it."""
    if chromium() is None and os.environ.get("CI"):
        pytest.fail("Chromium is missing: the browser tests must run here")
    if chromium() is None:
        pytest.skip("Chromium is not installed")


@contextmanager
def open_page(width: int = 1400, height: int = 1000, scheme: str = "light") -> Iterator[tuple[Page, Seen]]:
    """An empty page, and what it does while the block runs; the size is in pixels."""
    chromium_or_skip()
    with blank_page(width, height, scheme) as page:
        seen = Seen()
        page.on("console", lambda message: message.type == "error" and seen.errors.append(message.text))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        own = ("http://127.0.0.1", "file:", "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or seen.foreign_requests.append(request.url))
        yield page, seen


def screenshot(page: Page, name: str, *, full_page: bool = False) -> None:
    """Save a picture for people in reports/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full_page)


def pictures_shown(page: Page) -> int:
    """The number of images that the page shows."""
    return page.evaluate("[...document.images].filter(image => image.complete && image.naturalWidth > 0).length")


def overflow(page: Page) -> int:
    """How many pixels wider than its window the page is."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
