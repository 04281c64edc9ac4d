from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.approaches.cnn import LectureCnn
from pipeline.approaches.transfer import TransferNet
from pipeline.base.errors import PipelineError
from pipeline.learning import loop as training
from pipeline.learning.approach import Job
from pipeline.learning.augmentation import augment
from pipeline.learning.devices import Precision
from pipeline.learning.loop import fit, smooth
from pipeline.learning.params import TrainingParams
from pipeline.learning.predict import predict_logits

CPU = torch.device("cpu")
RMSPROP = {
    "epochs": 3, "batch_size": 16, "optimizer": "rmsprop", "learning_rate": 1e-3, "weight_decay": 0.0,
    "schedule": "constant", "flip": False, "shift": 0, "cutout": 0, "label_smoothing": 0.0, "ema_decay": 0.0,
}  # fmt: skip
EVERYTHING = {
    "epochs": 3, "batch_size": 16, "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05,
    "schedule": "one_cycle", "flip": True, "shift": 3, "cutout": 8, "label_smoothing": 0.1, "ema_decay": 0.9,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Fix the arithmetic, so that every machine computes the same."""
    monkeypatch.setattr(training, "choose_precision", lambda *_: Precision(torch.float32, "", "a test"))


@pytest.fixture
def job(dataset, tmp_path):
    return Job(dataset, seed=0, device=CPU, checkpoint=tmp_path / "checkpoint.pt")


def network() -> LectureCnn:
    torch.manual_seed(0)
    return LectureCnn("grayscale")


def weights(model) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_weights_that_the_last_step_breaks_do_not_replace_the_checkpoint(job, monkeypatch):
    """An epoch has one step here, so that no later loss shows the damage."""
    settings = TrainingParams.model_validate(RMSPROP | {"batch_size": len(job.images("train"))})
    fit(network(), settings.model_copy(update={"epochs": 1}), job)
    kept = job.checkpoint.read_bytes()
    make = training.make_optimizer

    def breaking(groups, params):
        optimizer = make(groups, params)
        optimizer.register_step_post_hook(lambda *_: groups[0]["params"][0].data.fill_(float("nan")))
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", breaking)
    with pytest.raises(PipelineError, match="a weight is not a finite number after epoch 2: lower learning_rate"):
        fit(network(), settings, job)
    assert job.checkpoint.read_bytes() == kept


@pytest.mark.parametrize("settings", [RMSPROP, EVERYTHING])
def test_the_same_seed_gives_the_same_bytes(job, settings):
    ended = []
    for _ in range(2):
        job.checkpoint.unlink(missing_ok=True)
        model = network()
        fit(model, TrainingParams.model_validate(settings), job)
        ended.append(weights(model))
    assert same(*ended)


@pytest.mark.parametrize("settings", [RMSPROP, EVERYTHING])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(job, dataset, settings, killed_after):
    params = TrainingParams.model_validate(settings)
    whole = network()
    history = fit(whole, params, job)
    job.checkpoint.unlink()

    class Killed(BaseException):
        pass

    def kill(epoch):
        if epoch.epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        fit(network(), params, Job(dataset, 0, CPU, job.checkpoint, on_epoch=kill))
    seen = []
    torch.manual_seed(99)  # another process would be in another state
    resumed = LectureCnn("grayscale")
    resumed_history = fit(resumed, params, Job(dataset, 0, CPU, job.checkpoint, on_epoch=seen.append))
    assert same(weights(whole), weights(resumed))
    assert [epoch.epoch for epoch in seen] == [1, 2, 3], "the curves are whole again"
    assert [epoch.train_loss for epoch in resumed_history] == [epoch.train_loss for epoch in history]


def test_a_damaged_checkpoint_means_a_fresh_start(job, capsys):
    job.checkpoint.write_bytes(b"damaged")
    model, untouched = network(), network()
    fit(model, TrainingParams.model_validate(RMSPROP), job)
    job.checkpoint.unlink()
    fit(untouched, TrainingParams.model_validate(RMSPROP), job)
    assert same(weights(model), weights(untouched))
    assert "is damaged" in capsys.readouterr().out


def test_training_learns(job):
    model = network()
    history = fit(model, TrainingParams.model_validate(RMSPROP | {"epochs": 8}), job)
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].validation_accuracy > 0.8
    assert not model.training


def test_the_average_of_the_weights_is_what_is_validated_and_kept(job):
    model = network()
    history = fit(model, TrainingParams.model_validate(EVERYTHING), job)
    logits = torch.from_numpy(predict_logits(model, job.images("validation").numpy(), CPU))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, job.labels("validation")).item()
    assert loss == pytest.approx(history[-1].validation_loss, rel=1e-5)
    job.checkpoint.unlink()
    last = network()
    fit(last, TrainingParams.model_validate(EVERYTHING | {"ema_decay": 0.0}), job)
    assert not same(weights(model), weights(last))


def test_a_loss_that_is_not_a_number_stops_at_once_and_keeps_the_checkpoint(job, dataset):
    params = TrainingParams.model_validate(RMSPROP)
    model = network()

    def break_after_first(epoch):
        if epoch.epoch == 1:
            with torch.no_grad():
                model.conv1.weight.fill_(float("nan"))

    with pytest.raises(PipelineError, match="the loss is nan at step 1 of epoch 2: lower learning_rate"):
        fit(model, params, Job(dataset, 0, CPU, job.checkpoint, on_epoch=break_after_first))
    resumed = network()
    fit(resumed, params, job)
    assert all(tensor.isfinite().all() for tensor in weights(resumed))


def test_a_batch_larger_than_the_data_is_refused(job):
    with pytest.raises(PipelineError, match="batch_size = 1000 is larger than the 160 training images"):
        fit(network(), TrainingParams.model_validate(RMSPROP | {"batch_size": 1000}), job)


def test_frozen_blocks_keep_their_weights_and_the_others_move(job):
    from pipeline.approaches.transfer import TransferParams, parameter_groups

    params = TransferParams(
        backbone="resnet18", resolution=32, frozen_blocks=3, mirror=False, head_l2=0.01,
        training=TrainingParams.model_validate(EVERYTHING | {"epochs": 1}),
    )  # fmt: skip
    torch.manual_seed(0)
    model = TransferNet("resnet18", 32, pretrained=False)
    blocks = model.backbone.blocks()
    before = [weights(block) for block in blocks]
    fit(model, params.training, job, parameter_groups(model, params))
    moved = [not same(old, weights(block)) for old, block in zip(before, blocks, strict=True)]
    assert moved == [False] * 3 + [True] * (len(blocks) - 3)


@pytest.mark.parametrize("augmentation", [{}, {"flip": True}, {"shift": 4}, {"cutout": 8}, {"flip": True, "shift": 2}])
@given(st.integers(0, 2**32 - 1))
def test_augmented_images_hold_pixels_of_their_own_image(augmentation, seed):
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    params = TrainingParams.model_validate(RMSPROP | augmentation)
    changed = augment(images, params, torch.Generator().manual_seed(seed))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    gray = (127, 127, 127)
    for before, after in zip(images.reshape(6, -1, 3), changed.reshape(6, -1, 3), strict=True):
        known = {tuple(pixel.tolist()) for pixel in before} | {gray}
        assert {tuple(pixel.tolist()) for pixel in after} <= known


def test_each_image_gets_its_own_draw():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8).expand(64, -1, -1, -1)
    changed = augment(image, TrainingParams.model_validate(RMSPROP | {"shift": 3, "flip": True}), torch.Generator())
    assert len({after.numpy().tobytes() for after in changed}) > 30


def test_a_shift_moves_the_image_and_mirrors_its_border():
    torch.manual_seed(0)
    ramp = torch.arange(32, dtype=torch.uint8)[None, None, :, None].expand(200, 32, 32, 3)
    changed = augment(ramp, TrainingParams.model_validate(RMSPROP | {"shift": 2}), torch.Generator())
    rows = {tuple(image[0, :, 0].tolist()) for image in changed}
    inside = range(32)
    assert rows == {tuple(abs(31 - abs(31 - abs(x + move))) for x in inside) for move in (-2, -1, 0, 1, 2)}


def test_smoothing_moves_targets_towards_one_half():
    assert smooth(torch.tensor([0.0, 1.0]), 0.2).tolist() == pytest.approx([0.1, 0.9])


def test_the_learning_rate_of_the_curves_is_the_param(job):
    model = network()
    groups = [
        {"params": list(model.logit.parameters()), "rate_factor": 2.0},
        {"params": list(model.conv1.parameters()), "rate_factor": 1.0},
    ]
    history = fit(model, TrainingParams.model_validate(RMSPROP), job, groups)
    assert [epoch.learning_rate for epoch in history] == [RMSPROP["learning_rate"]] * 3
