"""The service over HTTP, started the way a user starts it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime
import pytest
import requests
import yaml
from PIL import Image

from serving.settings import Settings
from tests.conftest import ROOT
from tests.hostile import photo, saved
from tests.service import files_of, folder, start, url
from tests.serving import BIN, environment

__all__ = ["folder", "start", "url"]


def test_the_answers_are_the_models_own(url, folder, small_dataset):
    images = small_dataset.images[small_dataset.rows("test")]
    session = onnxruntime.InferenceSession(folder / "models/champion/model.onnx")
    expected = session.run(["probability"], {"images": images})[0]
    answer = requests.post(f"{url}/predict", files=files_of(images)).json()
    probabilities = [prediction["probabilities"]["truck"] for prediction in answer["predictions"]]
    assert np.allclose(probabilities, expected, atol=1e-6)
    for prediction, p in zip(answer["predictions"], expected, strict=True):
        assert prediction["label"] == ("truck" if p > 0.5 else "car")
        assert prediction["probability"] == max(prediction["probabilities"].values())


def test_an_answer_names_the_file_and_the_model(url, folder):
    file = saved(photo(50), "JPEG")
    answer = requests.post(f"{url}/predict", files=[("images", ("my lorry.jpg", file, "image/jpeg"))])
    (prediction,) = answer.json()["predictions"]
    assert (prediction["filename"], prediction["width"], prediction["height"]) == ("my lorry.jpg", 50, 50)
    assert prediction["sha256"] == hashlib.sha256(file).hexdigest()
    card = json.loads((folder / "models/champion/card.json").read_text())
    model = answer.json()["model"]
    assert model["digest"] == card["files"]["model.onnx"]["sha256"]
    assert model["test_accuracy_interval"] == card["test_accuracy_interval"]
    assert requests.get(f"{url}/model").json() == card | {"digest": model["digest"]}


def test_json_with_base64_gets_the_same_answers(url):
    file = saved(photo(), "PNG")
    text = base64.b64encode(file).decode()
    form = requests.post(f"{url}/predict", files=[("images", ("a.png", file))]).json()
    body = {"images": [{"content": text, "filename": "a.png"}, text]}
    first, second = requests.post(f"{url}/predict", json=body).json()["predictions"]
    assert [first] == form["predictions"]
    assert second == first | {"filename": None}


def test_one_bad_file_is_named(url):
    files = [("images", ("good.png", saved(photo(), "PNG"))), ("images", ("notes.txt", b"hello"))]
    answer = requests.post(f"{url}/predict", files=files)
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "notes.txt is not a PNG, JPEG, WEBP, BMP or GIF image.",
        "code": "unknown_format",
        "index": 1,
        "filename": "notes.txt",
    }


@pytest.mark.parametrize("ask", ["query", "form", "json"])
def test_partial_answers_the_good_images_and_gives_the_reason_for_each_bad_one(url, ask):
    good, bad = saved(photo(), "PNG"), b"hello"
    files = [("images", ("good.png", good)), ("images", ("bad.png", bad))]
    if ask == "query":
        answer = requests.post(f"{url}/predict?partial=true", files=files)
    elif ask == "form":
        answer = requests.post(f"{url}/predict", files=files, data={"partial": "true"})
    else:
        entries = [
            {"filename": n, "content": base64.b64encode(c).decode()} for n, c in (("good.png", good), ("bad.png", bad))
        ]
        answer = requests.post(f"{url}/predict", json={"images": entries, "partial": True})
    first, second = answer.json()["predictions"]
    assert answer.status_code == 200
    assert first["label"] in {"car", "truck"}
    assert (second["code"], second["filename"], second["index"]) == ("unknown_format", "bad.png", 1)
    assert "label" not in second


def test_the_pixels_that_the_model_saw_come_on_demand(url, some_images):
    (prediction,) = requests.post(f"{url}/predict?pixels=true", files=files_of(some_images[:1])).json()["predictions"]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(prediction["pixels"]))))
    assert np.array_equal(seen, some_images[0])


def test_an_explanation_is_a_grid_and_a_picture(url, folder, small_dataset):
    image = small_dataset.images[small_dataset.rows("test")[0]]
    answer = requests.post(f"{url}/explain", files=files_of([image], "image")).json()
    grid = np.array(answer["grid"])
    assert grid.shape == (8, 8)
    # Only one square covers the corner cell. Cover it by hand: the evidence must fall by the value in the grid.
    covered = image.copy()
    covered[:8, :8] = image.mean(axis=(0, 1)).round()
    session = onnxruntime.InferenceSession(folder / "models/champion/model.onnx")
    p, q = session.run(["probability"], {"images": np.stack([image, covered])})[0].astype(float)
    sign = 1 if answer["label"] == "truck" else -1
    assert grid[0, 0] == pytest.approx(sign * (np.log(p / (1 - p)) - np.log(q / (1 - q))), abs=1e-3)
    assert Image.open(io.BytesIO(base64.b64decode(answer["overlay"]))).size == (320, 320)
    picture = requests.post(f"{url}/explain", files=files_of([image], "image"), headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == base64.b64decode(answer["overlay"])


def test_bentomls_own_client_gets_the_answers(url, tmp_path):
    path = tmp_path / "lorry.png"
    path.write_bytes(saved(photo(), "PNG"))
    with bentoml.SyncHTTPClient(url) as client:
        answer = client.predict(images=[path, path])
        explained = client.explain(image=path)
    assert [prediction["filename"] for prediction in answer["predictions"]] == ["lorry.png"] * 2
    assert explained["label"] == answer["predictions"][0]["label"]


def test_health_metrics_and_request_ids(url):
    for path in ("healthz", "livez", "readyz"):
        assert requests.get(f"{url}/{path}").status_code == 200
    answer = requests.post(
        f"{url}/predict", files=files_of([np.zeros((32, 32, 3), np.uint8)]), headers={"X-Request-ID": "my-7"}
    )
    label = answer.json()["predictions"][0]["label"]
    assert answer.headers["x-request-id"] == "my-7"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert requests.get(f"{url}/model").headers["x-request-id"] != requests.get(f"{url}/model").headers["x-request-id"]
    requests.post(f"{url}/predict", data=b"x", headers={"Content-Type": "text/plain"})
    metrics = requests.get(f"{url}/metrics").text
    for line in (
        rf'car_or_truck_images_total{{label="{label}"}} [1-9]',
        r"car_or_truck_probability_bucket\{le=\"0.99\"\} \d",
        r"car_or_truck_decode_seconds_count [1-9]",
        r"car_or_truck_inference_seconds_count [1-9]",
        r'car_or_truck_refusals_total\{reason="unsupported_content_type"\} [1-9]',
        r'bentoml_service_request_total\{endpoint="/predict",http_response_code="200",service_name="\w+"\} [1-9]',
        r'bentoml_service_request_total\{endpoint="/readyz",http_response_code="200",service_name="\w+"\} [1-9]',
        r'bentoml_service_request_duration_seconds_count\{endpoint="/predict",service_name="\w+"\} [1-9]',
    ):
        assert re.search(line, metrics), line


def test_the_service_listens_on_this_machine_only(url):
    port = int(url.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
    if not listening:
        pytest.skip("this system has no /proc/net/tcp")
    addresses = {line.split()[1] for line in listening.splitlines()[1:] if line.split()[3] == "0A"}
    assert f"0100007F:{port:04X}" in addresses
    assert f"00000000:{port:04X}" not in addresses


def test_the_openapi_document_names_every_endpoint_and_error(url):
    document = requests.get(f"{url}/openapi.json").json()
    assert document == requests.get(f"{url}/docs.json").json()
    assert set(document["paths"]) == {"/predict", "/explain", "/model", "/healthz", "/livez", "/readyz", "/metrics"}
    assert {"200", "400", "401", "408", "413", "415", "422", "429", "504"} <= set(
        document["paths"]["/predict"]["post"]["responses"]
    )
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert requests.post(f"{url}/predict", json=example).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/predict", "POST"), ("POST", "/model", "GET"), ("POST", "/healthz", "GET")]
)
def test_an_answer_to_a_wrong_method_names_the_right_one(url, method, path, allowed):
    answer = requests.request(method, url + path)
    assert answer.status_code == 405
    assert answer.json()["code"] == "wrong_method"
    assert allowed in answer.headers["allow"].split(", ")


def test_the_service_imports_only_its_own_requirements(folder, tmp_path):
    """It never imports torch, MLflow or the pipeline."""
    done = subprocess.run(
        [BIN / "python", "-c", "import sys, serving.service; print(*sys.modules)"],
        cwd=folder, env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"torch", "mlflow", "pipeline", "dvc", "pandas", "matplotlib"} & set(done.stdout.split())


def test_the_guide_lists_every_setting_with_its_default():
    guide = (ROOT / "docs/serving.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `CAR_OR_TRUCK_{name.upper()}` | {field.default} |".replace("|  |", "| |") in guide
    assert guide.count("| `CAR_OR_TRUCK_") == len(Settings.model_fields)


def test_the_commands_and_the_python_of_the_guide_work(url, tmp_path):
    guide = (ROOT / "docs/serving.md").read_text()
    (tmp_path / "photo.jpg").write_bytes(saved(photo(200), "JPEG"))
    (tmp_path / "another.png").write_bytes(saved(photo(40), "PNG"))
    (tmp_path / "notes.txt").write_text("hello")
    (lines,) = re.findall(r"```bash\n(curl.*?)```", guide, re.DOTALL)
    for line in lines.strip().splitlines():
        command = line.replace("http://127.0.0.1:3000", url).replace("curl -s", "curl -sf")
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, line
        assert "looked-at.png" in line or json.loads(done.stdout)
    assert Image.open(tmp_path / "looked-at.png").size == (320, 320)
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    script = code.replace("http://127.0.0.1:3000", url)
    done = subprocess.run([BIN / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in {"car", "truck"}, done.stderr


def test_the_yaml_of_the_deployment_guide_is_valid_and_its_alerts_use_metrics_that_exist(url):
    guide = (ROOT / "docs/deploy.md").read_text()
    documents = [
        part for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) for part in yaml.safe_load_all(block)
    ]
    kinds = [document.get("kind") for document in documents]
    assert {"Deployment", "Service", "HorizontalPodAutoscaler"} <= set(kinds)
    requests.post(f"{url}/predict", files=[("images", ("a.png", saved(photo(), "PNG")))])
    metrics = requests.get(f"{url}/metrics").text
    rules = [rule["expr"] for document in documents for group in document.get("groups", []) for rule in group["rules"]]
    assert len(rules) == 3
    for name in re.findall(r"(?:car_or_truck|bentoml_service)_\w+", " ".join(rules)):
        assert f"\n{name}" in metrics, name
