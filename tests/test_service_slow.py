"""Slow tests of the service: a minute at full load, a fresh environment, schemathesis against its OpenAPI document."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import threading
import time
from contextlib import chdir

import pytest
import requests

from pipeline.packaging.bento import build_bento
from tests.hostile import photo, png, saved
from tests.serving import BIN, Serving, environment, make_service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_dataset):
    return make_service(tmp_path_factory.mktemp("service"), small_dataset)


def test_a_minute_at_full_load_has_no_error_and_does_not_grow(folder, tmp_path):
    requests_of = {
        "one": [("images", ("a.png", saved(photo(), "PNG")))],
        "many": [("images", (f"{n}.jpg", saved(photo(300), "JPEG"))) for n in range(64)],
        "bad": [("images", ("bad.png", saved(photo(), "PNG")[:2000]))],  # a longer piece would have all pixels
        "bomb": [("images", ("bomb.png", png(20000, 20000, 1, 0, bytes(100))))],
    }
    expected = {"one": 200, "many": 200, "bad": 422, "bomb": 422}
    serving = Serving(folder, environment(tmp_path))
    with serving as url:
        workers = serving.wait_for_workers(len(serving.workers()))
        wrong, counts = [], dict.fromkeys(requests_of, 0)
        end = time.monotonic() + 130

        def client(kind: str) -> None:
            with requests.Session() as session:
                while time.monotonic() < end:
                    answer = session.post(f"{url}/predict", files=requests_of[kind], timeout=30)
                    counts[kind] += 1
                    if answer.status_code != expected[kind]:
                        wrong.append((kind, answer.status_code, answer.text[:200]))

        clients = [
            threading.Thread(target=client, args=(kind,)) for kind in [*requests_of, "one", "one", "many", "one"]
        ]
        for thread in clients:
            thread.start()
        time.sleep(70)  # caches, arenas and BentoML's timers, which last over 60 s each, are full by then
        before = [worker.memory_info().rss for worker in workers]
        for thread in clients:
            thread.join()
        after = [worker.memory_info().rss for worker in workers]
        assert not wrong, wrong[:3]
        assert min(counts.values()) > 100, counts
        assert sum(after) <= 1.05 * sum(before), (before, after)
        assert [worker.pid for worker in serving.workers()] == [worker.pid for worker in workers], "no worker died"
        for line in serving.output().splitlines():
            assert "ERROR" not in line
            assert "WARN" not in line


def test_the_bento_serves_alone_in_a_fresh_environment(folder, tmp_path):
    """Unpacked in another folder, with only its own requirements installed, the Bento gives the same answers."""
    with chdir(folder):
        build_bento(tmp_path / "car_or_truck.bento")
    assert (tmp_path / "car_or_truck.bento").stat().st_size < 60e6
    elsewhere = tmp_path / "elsewhere"
    with tarfile.open(tmp_path / "car_or_truck.bento") as bento:
        bento.extractall(elsewhere / "bento", filter="data")
    venv = elsewhere / "venv"
    subprocess.run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, venv], check=True)
    install = [BIN / "uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python", "-r"]
    subprocess.run([*install, elsewhere / "bento" / "env" / "python" / "requirements.txt"], check=True)
    size = sum(path.lstat().st_size for path in venv.rglob("*"))
    assert size < 600e6, f"{size / 1e6:.0f} MB"
    installed = {path.name for path in (venv / "lib").glob("python*/site-packages/*")}
    assert not {"torch", "mlflow", "pandas"} & installed
    files = [("images", (f"{n}.png", saved(photo(30 + n), "PNG"))) for n in range(5)]
    answers = []
    for command, place in ((venv / "bin" / "bentoml", elsewhere / "bento"), (BIN / "bentoml", folder)):
        with Serving(place, environment(tmp_path / "home"), command) as url:
            answers.append(requests.post(f"{url}/predict", files=files).json())
            assert 'id="title"' in requests.get(f"{url}/ui/").text
            assert requests.get(f"{url}/ui/samples").json()
    assert answers[0] == answers[1]


def test_schemathesis_finds_no_answer_that_the_openapi_document_lacks(folder, tmp_path):
    with Serving(folder, environment(tmp_path, CAR_OR_TRUCK_WORKERS="1")) as url:
        done = subprocess.run(
            [BIN / "schemathesis", "run", f"{url}/openapi.json", "--checks",
             "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
             "--max-examples", "60", "--seed", "1", "--no-color", "--request-timeout", "20"],
            capture_output=True, text=True, timeout=500, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_the_service_listens_at_the_address_that_a_container_sets(folder, tmp_path):
    """docs/deploy.md sets it with BENTOML_HOST."""
    serving = Serving(folder, environment(tmp_path, BENTOML_HOST="127.0.0.2", CAR_OR_TRUCK_WORKERS="1"))
    serving.url = serving.url.replace("127.0.0.1", "127.0.0.2")
    with serving as url:
        assert requests.get(f"{url}/model").ok
