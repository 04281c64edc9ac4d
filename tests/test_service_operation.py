"""The service in operation: settings, limits, signals, crashes, restarts."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests
from PIL import Image
from starlette.responses import PlainTextResponse

from serving.request_body import RequestBodyMiddleware
from serving.request_info import RequestInfoMiddleware
from serving.request_limit import RequestLimitMiddleware
from serving.send_timeout import SendTimeoutMiddleware
from serving.settings import Settings, SettingsFault
from tests.hostile import saved
from tests.service import folder, start, url
from tests.serving import BIN, Serving, environment

__all__ = ["folder", "start", "url"]


def test_every_address_but_the_health_checks_needs_the_token(start):
    with start(CAR_OR_TRUCK_TOKEN="open-sesame", CAR_OR_TRUCK_WORKERS="1") as serving:
        assert requests.get(f"{serving.url}/readyz").status_code == 200
        for path in ("model", "metrics", "ui/", "openapi.json", "schema.json", "docs", "nothing"):
            answer = requests.get(f"{serving.url}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong = requests.get(f"{serving.url}/model", headers={"Authorization": "Bearer open-sesam"})
        right = requests.get(f"{serving.url}/model", headers={"Authorization": "Bearer open-sesame"})
        assert (wrong.status_code, right.status_code) == (401, 200)
        large = requests.post(f"{serving.url}/predict", data=bytes(17_000_000))
        assert large.status_code == 401, "the token is checked before the body is read"
        assert "open-sesame" not in serving.output()


def test_pages_of_other_origins_may_call_only_where_they_are_listed(start, url):
    preflight = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in requests.options(f"{url}/predict", headers=preflight).headers
    with start(
        CAR_OR_TRUCK_CORS_ORIGINS="https://good.example, https://other.example", CAR_OR_TRUCK_WORKERS="1"
    ) as serving:
        allowed = requests.options(f"{serving.url}/predict", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://good.example"
        refused = requests.options(f"{serving.url}/predict", headers=preflight | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers


def test_limits_are_set_by_the_environment(start):
    limits = {
        "MAX_IMAGES": "2", "MAX_BODY_MEGABYTES": "0.1", "MAX_MEGAPIXELS": "0.01", "MAX_REQUEST_MEGAPIXELS": "0.012",
    }  # fmt: skip
    with start(
        **{f"CAR_OR_TRUCK_{name}": value for name, value in limits.items()}, CAR_OR_TRUCK_WORKERS="1"
    ) as serving:
        predict = f"{serving.url}/predict"

        def codes(*files: bytes) -> tuple[int, str]:
            answer = requests.post(predict, files=[("images", ("a.png", file)) for file in files])
            return answer.status_code, answer.json().get("code")

        small, middle, large = (saved(Image.new("RGB", (side, side)), "PNG") for side in (20, 90, 110))
        assert codes(small) == (200, None)
        assert codes(small, small, small) == (413, "too_many_images")
        assert codes(large) == (422, "image_too_large")
        assert codes(middle, middle) == (413, "too_many_pixels")
        assert codes(bytes(200_000)) == (413, "body_too_large")
        health = requests.get(f"{serving.url}/readyz", data=bytes(200_000))
        assert health.status_code == 200, "health checks are never refused"


def test_the_bodies_of_all_requests_together_have_a_limit_and_leave_the_memory(start):
    with start(CAR_OR_TRUCK_MAX_HELD_MEGABYTES="0.05", CAR_OR_TRUCK_WORKERS="1") as serving:

        def status(content: bytes) -> int:
            return requests.post(f"{serving.url}/predict", files=[("images", ("a.bmp", content))]).status_code

        small = saved(Image.new("RGB", (70, 70)), "BMP")
        assert [status(small) for _ in range(5)] == [200] * 5
        assert [status(bytes(20_000)) for _ in range(5)] == [422] * 5
        assert [status(bytes(60_000)) for _ in range(3)] == [429] * 3
        assert status(small) == 200


def test_a_refusal_of_an_unread_body_closes_the_connection(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "100000000")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (413, "close")


def test_the_log_has_a_line_for_each_request_except_health_checks(start):
    with start(CAR_OR_TRUCK_WORKERS="1") as serving:
        requests.get(f"{serving.url}/readyz")
        requests.post(f"{serving.url}/predict", data=b"12345", headers={"X-Request-ID": "my-7"})
        requests.get(f"{serving.url}/secret")
        time.sleep(0.2)
        lines = [line for line in serving.output().splitlines() if ", request " in line]
        assert len(lines) == 2
        assert re.search(r"POST /predict 415, 5 bytes in, [0-9.]+ ms, request my-7$", lines[0])
        assert re.search(r"GET other 404, 0 bytes in, [0-9.]+ ms, request [0-9a-f]{32}$", lines[1])


def test_the_page_works_without_samples(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "models/champion/samples")
    with Serving(copy, environment(tmp_path / "home", CAR_OR_TRUCK_WORKERS="1")) as url:
        assert requests.get(f"{url}/ui/samples").json() == []
        assert requests.get(f"{url}/ui/samples/car-1.png").status_code == 404


def test_a_client_that_does_not_read_holds_no_place_for_ever():
    async def never_taken(_) -> None:
        await asyncio.Event().wait()

    async def body() -> dict:
        return {"type": "http.request", "body": b"12345", "more_body": False}

    requests_held = RequestLimitMiddleware(PlainTextResponse("x"), max_requests=1)
    bytes_held = RequestBodyMiddleware(requests_held, max_bytes=10, max_held_bytes=10, seconds=5)
    app = RequestInfoMiddleware(SendTimeoutMiddleware(bytes_held, seconds=0.2), ["/model"])
    scope = {"type": "http", "method": "GET", "path": "/model", "headers": []}
    asyncio.run(asyncio.wait_for(app(scope, body, never_taken), 5))
    assert (requests_held.held_requests, bytes_held.held_bytes) == (0, 0)


def test_too_many_requests_at_a_time_are_refused_with_a_time_to_try_again(start):
    with start(CAR_OR_TRUCK_MAX_REQUESTS="1", CAR_OR_TRUCK_WORKERS="1") as serving:
        slow = [("images", ("a.png", saved(Image.new("L", (5000, 4900)), "PNG")))] * 4
        answers = []

        def send() -> None:
            answers.append(requests.post(f"{serving.url}/predict", files=slow))

        clients = [threading.Thread(target=send) for _ in range(6)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            assert requests.get(f"{serving.url}/readyz").status_code == 200, "health checks are never refused"
            time.sleep(0.05)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert any(answer.status_code == 200 for answer in answers)
        assert refused
        assert all(answer.headers["retry-after"] == "1" for answer in refused)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CAR_OR_TRUCK_MAX_IMAGES", "many", "CAR_OR_TRUCK_MAX_IMAGES is 'many'"),
        ("CAR_OR_TRUCK_MAX_IMAGES", "0", "CAR_OR_TRUCK_MAX_IMAGES is '0'"),
        ("CAR_OR_TRUCK_BODY_SECONDS", "nan", "CAR_OR_TRUCK_BODY_SECONDS is 'nan'"),
        (
            "CAR_OR_TRUCK_MAX_IMAGE",
            "3",
            "CAR_OR_TRUCK_MAX_IMAGE is not a setting of the service; the settings are CAR_OR_TRUCK_TOKEN",
        ),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(variable, value, message):
    with pytest.raises(SettingsFault) as caught:
        Settings.from_environment({variable: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "card.json cannot be read"),
        (lambda champion: (champion / "model.onnx").unlink(), "model.onnx cannot be read"),
        (lambda champion: (champion / "model.onnx").write_bytes(b"x"), "is not the model of its card.json"),
        (lambda champion: (champion / "card.json").write_text("{"), "card.json is damaged"),
        (lambda champion: (champion / "card.json").write_text('{"schema": 99}'), "has schema 99, but this service"),
    ],
)
def test_a_model_that_cannot_be_served_ends_the_service_before_it_listens(folder, tmp_path, damage, message):
    copy = shutil.copytree(folder, tmp_path / "service")
    damage(copy / "models" / "champion")
    done = subprocess.run(
        [BIN / "bentoml", "serve"], cwd=copy, env=environment(tmp_path / "home", BENTOML_PORT="0"), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "listening" not in done.stderr + done.stdout
    (line,) = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert message in line


def test_sigterm_answers_running_requests_refuses_new_ones_and_exits_with_0(start):
    with start(CAR_OR_TRUCK_WORKERS="1") as serving:
        slow = [("images", ("a.png", saved(Image.new("L", (5000, 4900)), "PNG")))] * 4
        answers = []
        client = threading.Thread(target=lambda: answers.append(requests.post(f"{serving.url}/predict", files=slow)))
        client.start()
        time.sleep(0.3)
        os.kill(serving.process.pid, signal.SIGTERM)
        client.join()
        assert answers[0].status_code == 200
        assert serving.process.wait(20) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{serving.url}/readyz", timeout=2)


def test_a_killed_worker_costs_its_own_requests_only(start):
    with start(CAR_OR_TRUCK_WORKERS="2") as serving:
        first, second = serving.wait_for_workers(2)
        first.kill()
        answered = 0
        for _ in range(20):
            try:
                assert requests.get(f"{serving.url}/model", timeout=10).status_code == 200
                answered += 1
            except requests.ConnectionError:
                continue  # the dead worker had this connection
        assert answered >= 15
        deadline = time.monotonic() + 30
        while len(serving.workers()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(serving.workers()) == 2
        assert second.is_running()


def test_a_new_champion_is_picked_up_by_a_restart(folder, tmp_path, small_dataset):
    copy = shutil.copytree(folder, tmp_path / "service")
    with Serving(copy, environment(tmp_path / "home", CAR_OR_TRUCK_WORKERS="1")) as url:
        card_path = copy / "models/champion/card.json"
        card_path.write_text(json.dumps(json.loads(card_path.read_text()) | {"name": "newer"}))
        assert requests.get(f"{url}/model").json()["name"] == "baseline", "it shows the model that it uses"
    with Serving(copy, environment(tmp_path / "home", CAR_OR_TRUCK_WORKERS="1")) as url:
        assert requests.get(f"{url}/model").json()["name"] == "newer"


def test_idle_connections_do_not_block_other_clients(url):
    port = int(url.rsplit(":", 1)[1])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for connection in idle[:50]:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert requests.get(f"{url}/model", timeout=5).status_code == 200
    finally:
        for connection in idle:
            connection.close()
