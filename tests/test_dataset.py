from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import PipelineError
from pipeline.base.params import CIFAR10_CLASSES, DataParams
from pipeline.data.dataset import load, save
from pipeline.data.extract import extract
from tests.archives import make_batches, write_records


def test_each_image_is_the_one_its_manifest_row_names(dataset):
    batches = make_batches(20)
    for row in dataset.manifest.itertuples():
        labels, pixels = batches[f"{row.batch}.bin"]
        assert CIFAR10_CLASSES[labels[row.row]] == {"car": "automobile", "truck": "truck"}[row.class_name]
        assert (dataset.images[row.id] == pixels[row.row].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_the_manifest_is_in_official_order_and_complete(dataset):
    manifest = dataset.manifest
    assert manifest["id"].tolist() == list(range(240))
    assert manifest["batch"].unique().tolist() == [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    assert all(rows.is_monotonic_increasing for _, rows in manifest.groupby("batch")["row"])
    assert (manifest["label"] == (manifest["class_name"] == "truck")).all()


@settings(max_examples=20, deadline=None)
@given(share=st.sampled_from([0.0, 0.1, 0.25, 0.5]), seed=st.integers(0, 1000), pair=st.permutations(CIFAR10_CLASSES))
def test_splits_are_stratified_disjoint_and_seeded_for_any_two_classes(tmp_path_factory, share, seed, pair):
    records = write_records(tmp_path_factory.mktemp("records"), 4)
    params = DataParams(
        classes=pair[:2], shown_as={}, images_per_class={"train": 20, "test": 4}, validation_share=share
    )
    made = extract(records, params, seed)
    counts = made.manifest.groupby(["split", "label"]).size()
    for label in (0, 1):
        assert counts.get(("validation", label), 0) == share * 20
        assert counts["train", label] == 20 - share * 20
        assert counts["test", label] == 4
    assert made.class_names == pair[:2]
    assert made.manifest.equals(extract(records, params, seed).manifest)


def test_another_seed_draws_another_validation_split(records, data_params, dataset):
    other = extract(records, data_params, seed=1)
    assert other.digest == dataset.digest, "pixels and labels are the same"
    assert (other.rows("validation") != dataset.rows("validation")).any()


def test_saving_and_loading_changes_nothing_and_maps_the_images(dataset, tmp_path):
    save(dataset, tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert isinstance(loaded.images, np.memmap)
    assert (loaded.images == dataset.images).all()
    assert loaded.manifest.astype(object).equals(dataset.manifest.astype(object))
    assert (loaded.class_names, loaded.digest) == (dataset.class_names, dataset.digest)


@pytest.mark.parametrize("name", ["images.npy", "manifest.parquet", "dataset.json"])
@pytest.mark.parametrize("fault", ["missing", "empty", "truncated"])
def test_a_damaged_dataset_is_an_error_that_names_the_file(dataset, tmp_path, name, fault):
    folder = tmp_path / "out"
    save(dataset, folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if fault != "missing":
        (folder / name).write_bytes(b"" if fault == "empty" else content[: len(content) // 2])
    with pytest.raises(PipelineError, match=name.replace(".", r"\.")):
        load(folder)


def test_one_changed_pixel_is_noticed(dataset, tmp_path):
    save(dataset, tmp_path)
    with (tmp_path / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(PipelineError, match="its digest is not that of"):
        load(tmp_path)


def test_a_changed_split_is_noticed(dataset, tmp_path):
    save(dataset, tmp_path)
    dataset.manifest.assign(split="train").to_parquet(tmp_path / "manifest.parquet", index=False)
    with pytest.raises(PipelineError, match="its digest is not that of"):
        load(tmp_path)


def test_a_wrong_count_stops(records, data_params):
    params = data_params.model_copy(
        update={"images_per_class": data_params.images_per_class.model_copy(update={"test": 21})}
    )
    with pytest.raises(PipelineError, match="hold 20 test images of automobile, expected 21"):
        extract(records, params, seed=0)
