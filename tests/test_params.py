from __future__ import annotations

import pytest
import yaml

from pipeline import approaches
from pipeline.base.errors import PipelineError
from pipeline.base.params import load_params
from tests.conftest import set_key


def read():
    """All of params.yaml, as the stage `check` reads it."""
    return approaches.models(load_params())


def test_the_repositorys_params_are_valid(params):
    assert params.data.class_names == ["car", "truck"]
    assert len(params.download.sources) == 3
    assert list(approaches.models(params)) == ["baseline", "cnn-lecture", "cnn-tuned", "transfer"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cnn.lecture.training.epochs", 0, ["cnn.lecture.training.epochs = 0", "greater than 0"]),
        ("cnn.lecture.training.epochs", "30", ["cnn.lecture.training.epochs = '30'", "integer"]),
        ("cnn.tuned.training.optimiser", "adamw", ["optimiser = 'adamw'", "this key does not exist"]),
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
    set_key(document, key, value)
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError) as caught:
        read()
    message, *others = str(caught.value).splitlines()
    assert not others or key == "processes", "only `processes` concerns the batches of several trainings"
    assert message.startswith("params.yaml: ")
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    "mistakes",
    [{"seed": "zero", "processes": 0}, {"transfer.resolution": 5, "cnn.lecture.mirror": 1, "cnn.tuned.color": "red"}],
)
def test_each_mistake_has_its_line(in_tmp, document, mistakes):
    for key, value in mistakes.items():
        set_key(document, key, value)
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError) as caught:
        read()
    lines = str(caught.value).splitlines()
    assert len(lines) == len(mistakes)
    for key in mistakes:
        assert any(f"params.yaml: {key} = " in line for line in lines)


def test_what_is_missing_or_unknown_is_named(in_tmp, document):
    del document["package"]
    document["transfre"] = document.pop("transfer")
    (in_tmp / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(PipelineError, match="package is missing") as caught:
        read()
    assert "transfre" in str(caught.value)
    assert "this key does not exist" in str(caught.value)


def test_an_unknown_approach_or_recipe_is_named(params):
    with pytest.raises(PipelineError, match="'forest'; pipeline/approaches has baseline, cnn, transfer"):
        approaches.model(params, "forest")
    with pytest.raises(PipelineError, match="unknown recipe 'best': the approach cnn has the recipes lecture, tuned"):
        approaches.model(params, "cnn", "best")
    with pytest.raises(PipelineError, match="the approach transfer has no recipes"):
        approaches.model(params, "transfer", "best")


@pytest.mark.parametrize(
    ("text", "part"), [("seed: [", "is not YAML"), ("", "keys and values"), ("- 1", "keys and values")]
)
def test_a_file_that_is_not_a_mapping_is_a_clear_error(in_tmp, text, part):
    (in_tmp / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match=part):
        load_params()


def test_a_missing_file_says_where_to_run(in_tmp):
    with pytest.raises(PipelineError, match="run from the repository root"):
        load_params()
