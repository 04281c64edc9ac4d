from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import approaches
from pipeline.approaches.baseline import LeastSquares
from pipeline.approaches.cnn import LectureCnn
from pipeline.approaches.transfer import TransferNet
from pipeline.approaches.transfer.backbones import PACKAGED
from pipeline.base.errors import PipelineError
from pipeline.base.files import write_json
from pipeline.learning import card
from pipeline.learning.approach import Trained
from pipeline.learning.learn import Beginning, write
from pipeline.learning.predict import predict_logits
from pipeline.packaging import export
from pipeline.packaging.export import export_onnx, onnx_probabilities, package, prove
from pipeline.results.metrics import measure
from pipeline.results.result import read
from serving.classifier import Classifier, ModelFault
from tests.conftest import ROOT
from tests.projects import write_result

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return LectureCnn("grayscale").eval()


@pytest.fixture
def result(network, dataset, in_tmp):
    return write_result(network, dataset)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Where the champion is packaged once: exporting takes seconds, so each test gets a copy of this folder."""
    return tmp_path_factory.mktemp("packaged") / "champion"


@pytest.fixture
def champion(packaged, result, network, dataset, in_tmp):
    if not packaged.exists():
        package(result, network, dataset, 1e-4, packaged)
    return shutil.copytree(packaged, in_tmp / "champion")


@pytest.mark.parametrize(
    "make",
    [
        LeastSquares,
        lambda: LectureCnn("grayscale"),
        lambda: LectureCnn("rgb"),
        lambda: TransferNet(PACKAGED[0], 48, pretrained=True),
    ],
)
def test_onnx_answers_as_pytorch_for_any_number_of_images(make, tmp_path, dataset):
    torch.manual_seed(0)
    model = make().eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    for count in (1, 3, 60):
        images = dataset.images[:count]
        expected = torch.sigmoid(torch.from_numpy(predict_logits(model, images, CPU))).numpy()
        assert np.allclose(onnx_probabilities(path, images), expected, atol=1e-5)


def test_an_export_that_answers_differently_fails_its_proof(result, dataset, tmp_path):
    torch.manual_seed(1)
    export_onnx(LectureCnn("grayscale"), tmp_path / "other.onnx")
    with pytest.raises(PipelineError, match="ONNX Runtime's answers differ from some's"):
        prove(tmp_path / "other.onnx", result, dataset, tolerance=1e-4)


def test_answers_that_are_not_numbers_fail_the_proof(result, dataset, monkeypatch):
    monkeypatch.setattr(export, "onnx_probabilities", lambda _, images: np.full(len(images), np.nan, np.float32))
    with pytest.raises(PipelineError, match="probabilities by up to nan"):
        prove(Path("model.onnx"), result, dataset, tolerance=1e-4)


def test_nothing_unproved_is_packaged(result, network, dataset, in_tmp, monkeypatch):
    def export_another(_, path):
        torch.manual_seed(1)
        export_onnx(LectureCnn("grayscale"), path)

    monkeypatch.setattr(export, "export_onnx", export_another)
    with pytest.raises(PipelineError):
        package(result, network, dataset, 1e-4, in_tmp / "champion")
    assert not (in_tmp / "champion").exists()


def test_serving_loads_what_was_packaged_and_answers_as_the_result(champion, result, dataset):
    classifier = Classifier.load(champion)
    assert classifier.card.model_dump()["parity"]["largest_difference"] < 1e-5
    assert classifier.class_names == ("car", "truck")
    answers = classifier.probabilities(np.array(dataset.images))
    assert np.allclose(answers, result.predictions["probability"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", None, r"model\.onnx cannot be read"),
        ("model.onnx", b"damaged", r"is not the model of its card\.json"),
        ("card.json", None, r"card\.json cannot be read"),
        ("card.json", b"{", r"card\.json is damaged"),
        ("card.json", b'{"schema": 1}', r"card\.json is damaged"),
        ("card.json", b"[1]", r"card\.json is damaged"),
        ("card.json", b'{"schema": 99}', "schema 99, but this service reads schema 1"),
    ],
)
def test_serving_refuses_a_damaged_model_in_one_line(champion, name, content, message):
    path = champion / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelFault, match=message) as caught:
        Classifier.load(champion)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("title", 1), ("class_names", ["car"]), ("test_accuracy", float("nan")), ("test_accuracy_interval", [0.9, 2.0])],
)
def test_serving_says_which_key_of_the_card_is_damaged(champion, key, value):
    path = champion / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelFault, match=rf"card\.json is damaged \({key}"):
        Classifier.load(champion)


def test_a_result_without_validation_split_is_read_and_ranked(records, network, data_params, in_tmp):
    from pipeline.data.extract import extract
    from pipeline.results import leaderboard

    dataset = extract(records, data_params.model_copy(update={"validation_share": 0.0}), seed=0)
    result = write_result(network, dataset)
    assert measure(result).validation_accuracy is None
    document = leaderboard.build([result], dataset)
    assert document["chosen_by"] == "train_accuracy"
    leaderboard.write(document, in_tmp / "reports")


def test_a_result_that_is_written_again_keeps_nothing_of_the_one_before(network, result, dataset):
    optional = [result.folder / name for name in (card.FROZEN_PREDICTIONS, card.FIRST_FILTERS)]
    for path in optional:
        path.write_bytes(b"of the training before")
    assert (result.folder / card.RUN).exists()
    beginning = Beginning(result.name, "Some model", result.folder, {}, dataset, CPU, "a CPU", "float32")
    write(beginning, "cnn", Trained(network, 1.0), seed=0)
    assert not [path for path in (*optional, result.folder / card.RUN) if path.exists()]


def test_a_result_makes_a_round_trip(result, dataset):
    images = torch.from_numpy(np.array(dataset.images[:5]))
    expected = torch.tensor(result.predictions["probability"].to_numpy()[:5])
    assert torch.allclose(torch.sigmoid(approaches.rebuild(result.card, result.folder)(images)), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["card.json", "predictions.parquet", "history.csv", "model.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_damaged_result_is_an_error_that_names_the_file(result, name, fault):
    path = result.folder / name
    path.unlink() if fault == "missing" else path.write_bytes(b"\x00damaged")
    with pytest.raises(PipelineError, match=name.replace(".", r"\.")):
        approaches.rebuild(read(result.folder).card, result.folder)


def test_a_card_with_an_unknown_field_is_refused(result):
    card = json.loads((result.folder / "card.json").read_text()) | {"surprise": 1}
    write_json(result.folder / "card.json", card)
    with pytest.raises(PipelineError, match=r"card\.json is damaged"):
        read(result.folder)


def test_the_onnx_file_names_neither_the_code_nor_the_folder_that_made_it(tmp_path):
    export_onnx(LectureCnn("rgb").eval(), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert str(ROOT).encode() not in content
    assert b"stack_trace" not in content
    assert b".py" not in content
