from __future__ import annotations

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.params import load_params


def change(document: dict, key: str, value) -> None:
    *path, last = key.split(".")
    for part in path:
        document = document[part]
    document[last] = value


def test_the_repositorys_params_are_valid(params):
    assert params.data.class_names == ["car", "truck"]
    assert len(params.download.sources) == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cnn.lecture.training.epochs", 0, ["cnn.lecture.training.epochs = 0", "greater than 0"]),
        ("cnn.lecture.training.epochs", "30", ["cnn.lecture.training.epochs = '30'", "integer"]),
        ("cnn.tuned.training.optimiser", "adamw", ["cnn.tuned.training.optimiser = 'adamw'", "no such key"]),
        ("cnn.tuned.training.optimizer", "sgd", ["cnn.tuned.training.optimizer = 'sgd'", "'rmsprop' or 'adamw'"]),
        ("data.classes", ["automobile", "lorry"], ["data", "'lorry'", "allowed: airplane"]),
        ("data.classes", ["automobile", "automobile"], ["data", "must differ"]),
        ("data.validation_share", 1.5, ["data.validation_share = 1.5", "less than or equal to 0.5"]),
        ("data.shown_as", {"automobile": "Käfer"}, ["data.shown_as.automobile = 'Käfer'", "match pattern"]),
        ("device", "gpu", ["device = 'gpu'", "'auto', 'cpu' or 'cuda'"]),
        ("seed", -1, ["seed = -1", "greater than or equal to 0"]),
        ("download.sources", [], ["download.sources = []", "at least 1"]),
        ("cnn.tuned.training.batch_size", 9001, ["cnn.tuned.training.batch_size = 9001", "the 9,000 training images"]),
        ("transfer.training.batch_size", 9001, ["transfer.training.batch_size = 9001", "the 9,000 training images"]),
        ("processes", 3, ["batch_size = 32: cannot be shared out to 3 processes evenly"]),
    ],
)
def test_a_mistake_is_one_line_naming_key_value_and_what_is_allowed(in_tmp, document, key, value, expected):
    change(document, key, value)
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError) as caught:
        load_params()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("params.yaml: ")
    for part in expected:
        assert part in message


def test_each_mistake_has_its_line(in_tmp, document):
    change(document, "seed", "zero")
    change(document, "transfer.resolution", 5)
    del document["package"]
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError) as caught:
        load_params()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any("package is missing" in line for line in lines)


@pytest.mark.parametrize(("text", "part"), [("seed: [", "is not YAML"), ("", "the file"), ("- 1", "the file")])
def test_a_file_that_is_no_mapping_is_a_clear_error(in_tmp, text, part):
    (in_tmp / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match=part):
        load_params()


def test_a_missing_file_says_where_to_run(in_tmp):
    with pytest.raises(PipelineError, match="run from the repository root"):
        load_params()
