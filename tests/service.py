"""Fixtures: a running service with a small champion, and more with other settings."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from PIL import Image

from tests.hostile import saved
from tests.serving import Serving, environment, make_service


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_dataset):
    return make_service(tmp_path_factory.mktemp("service"), small_dataset)


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    with Serving(folder, environment(tmp_path_factory.mktemp("home"), CAR_OR_TRUCK_WORKERS="1")) as url:
        yield url


@pytest.fixture
def start(folder, tmp_path):
    """Start a service for this test alone, with its own settings."""

    @contextmanager
    def started(**settings: str):
        serving = Serving(folder, environment(tmp_path / "home", **settings))
        with serving:
            yield serving

    return started


def files_of(images, field="images"):
    return [
        (field, (f"{number}.png", saved(Image.fromarray(i), "PNG"), "image/png")) for number, i in enumerate(images)
    ]
