"""Image networks on volumes: slice by slice, and with kernels repeated along depth."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fewscans import engine, groups, methods, networks, optim
from fewscans.config.encoders import ENCODERS
from fewscans.errors import UserError
from fewscans.files import write_json
from fewscans.methods.base import Batch
from fewscans.networks.inflated import DepthConv3d
from fewscans.networks.resized import fitting_side, forward_at
from fewscans.networks.slices import places
from fewscans.shape import Shape

import timm  # isort: skip  (after fewscans.networks, which makes torchvision importable)

LIFTED = ["slices-test_resnet", "slices-test_vit", "inflated-test_resnet"]


def make(backbone, size=16, channels=1, key=0):
    shape = Shape(size, channels, 3)
    return networks.make_encoder(backbone, shape, patch_size=None, init_key=key).eval()


def plain(model):
    """timm's own, as a reader of encoder.json makes it."""
    network = model.fewscans_network
    flat = timm.create_model(network["backbone"].removeprefix("slices-"), **network["kwargs"])
    return flat.eval()


@pytest.fixture
def weights(tmp_path):
    """Weights for colour images, with batch norms that have seen some."""
    model = timm.create_model("test_resnet")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("backbone", LIFTED)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_volumes_to_embeddings_that_follow_from_the_key(backbone, channels):
    before = torch.random.get_rng_state()
    model, other = make(backbone, channels=channels), make(backbone, channels=channels, key=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.rand(2, channels, 16, 16, 16)
    found = model(x)
    assert found.shape == (2, networks.embedding_dim(model))
    assert torch.equal(found, make(backbone, channels=channels)(x))
    assert torch.equal(found, copy.deepcopy(model)(x))
    assert not torch.allclose(found, other(x))


def test_slices_lie_at_even_distances_and_as_far_from_both_ends():
    assert places(5) == [0, 1, 2, 3, 4]
    assert places(32) == list(range(32))
    assert places(64) == list(range(1, 64, 2))
    found = places(80)
    assert len(found) == 32
    assert found[0] == 80 - 1 - found[-1]
    assert {b - a for a, b in pairwise(found)} == {2, 3}


@pytest.mark.parametrize("backbone", ["slices-test_resnet", "slices-test_vit"])
@pytest.mark.parametrize("depth", [16, 48])
@torch.no_grad()
def test_features_are_the_mean_over_slices_of_plain_timms(backbone, depth):
    model = make(backbone)
    flat = plain(model)
    flat.load_state_dict(model.state_dict())
    x = torch.rand(2, 1, depth, 16, 16)
    taken = range(16) if depth == 16 else [i * 48 // 64 for i in range(1, 64, 2)]
    expected = torch.stack([flat(x[:, :, i]) for i in taken]).mean(dim=0)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_crops_of_another_side():
    model = make("slices-test_vit")
    side = fitting_side(model, 9)
    assert side == 8
    x = torch.rand(2, 1, side, side, side)
    flat = plain(model)
    flat.load_state_dict(model.state_dict())
    expected = torch.stack([forward_at(flat, x[:, :, i]) for i in range(side)]).mean(dim=0)
    torch.testing.assert_close(forward_at(model, x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", LIFTED)
@torch.no_grad()
def test_a_saved_encoder_comes_back(tmp_path, backbone):
    model = make(backbone, key=3)
    networks.save_encoder(tmp_path / "encoder.safetensors", model)
    facts = {"network": model.fewscans_network, "input": Shape(16, 1, 3).facts()}
    write_json(tmp_path / "encoder.json", facts)
    again, _ = networks.load_encoder(tmp_path, Shape(16, 1, 3))
    x = torch.rand(2, 1, 16, 16, 16)
    torch.testing.assert_close(again.eval()(x), model(x))
    if backbone.startswith("slices"):
        plain(model).load_state_dict(load_file(tmp_path / "encoder.safetensors"))


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_image_weights_on_slices_are_standardised_as_in_2d(weights, channels):
    flat = networks.load_pretrained("test_resnet", weights, Shape(32, channels)).eval()
    model = networks.load_pretrained("slices-test_resnet", weights, Shape(32, channels, 3)).eval()
    x = torch.rand(2, channels, 32, 32, 32)
    expected = torch.stack([flat(x[:, :, i]) for i in range(32)]).mean(dim=0)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_a_volume_alike_along_depth_gives_what_its_slice_gives(weights, channels):
    flat = networks.load_pretrained("test_resnet", weights, Shape(32, channels)).eval()
    model = networks.load_pretrained("inflated-test_resnet", weights, Shape(32, channels, 3)).eval()
    image = torch.rand(2, channels, 32, 32)
    x = image.unsqueeze(2).expand(-1, -1, 32, -1, -1)
    map_2d, map_3d = flat.forward_features(image), model.forward_features(x)
    assert map_3d.shape[2] == map_2d.shape[2]
    for depth in range(map_3d.shape[2]):  # borders too
        torch.testing.assert_close(map_3d[:, :, depth], map_2d, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(x), flat(image), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_with_depth_padded_by_zeros_borders_would_differ():
    image = torch.rand(1, 2, 8, 8)
    x = image.unsqueeze(2).expand(-1, -1, 8, -1, -1)
    ours = DepthConv3d(2, 3, 3, padding=1)
    ours.weight.copy_(ours.weight[:, :, :1].expand_as(ours.weight) / 3)
    zeros = torch.nn.Conv3d(2, 3, 3, padding=1)
    zeros.load_state_dict(ours.state_dict())
    found, inside = ours(x), zeros(x)
    torch.testing.assert_close(found[:, :, 1:-1], inside[:, :, 1:-1])
    assert not torch.allclose(found[:, :, 0], inside[:, :, 0], atol=1e-2)
    torch.testing.assert_close(found[:, :, 0], found[:, :, 4])


def test_untrained_kernels_differ_along_depth_and_pretrained_ones_do_not(weights):
    drawn = make("inflated-test_resnet").layer1[0].conv1.weight
    assert not torch.allclose(drawn[:, :, 0], drawn[:, :, 1])
    model = networks.load_pretrained("inflated-test_resnet", weights, Shape(32, 1, 3))
    found = model.layer1[0].conv1.weight
    own = load_file(weights)["layer1.0.conv1.weight"]
    assert all(torch.allclose(found[:, :, i] * 3, own) for i in range(3))


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "resnet50"])
@torch.no_grad()
def test_resnets_are_inflated_whole(name):
    with torch.device("meta"):
        flat = timm.create_model(name, num_classes=0)
    model = make(f"inflated-{name}", size=32)
    assert not [m for m in model.modules() if type(m).__name__.endswith("2d")]
    assert list(model.state_dict()) == list(flat.state_dict())
    assert model(torch.rand(1, 1, 32, 32, 32)).shape == (1, flat.num_features)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [("inflated-test_vit", "ResNets alone are inflated. Take slices-test_vit"),
     ("inflated-test_convnext", r"this has ConvNeXt\. Take slices-test_convnext"),
     ("inflated-seresnet18", r"this has Sigmoid\. Take slices-seresnet18"),
     ("slices-monai-resnet18", "networks of timm alone are lifted"),
     ("slices-inflated-test_resnet", "lifted to volumes, once. Take inflated-test_resnet"),
     ("slices-resnt18", r"'resnt18' is not a timm model\. Did you mean 'resnet18'"),
     ("test_resnet", "Take slices-test_resnet, inflated-test_resnet, one of MONAI's")],
)  # fmt: skip
def test_what_cannot_be_lifted_is_told(backbone, said):
    with pytest.raises(UserError, match=said):
        make(backbone)


def test_a_lifted_network_takes_no_images():
    with pytest.raises(UserError, match=r"takes volumes.*Take test_resnet, or write `ndim: 3`"):
        networks.make_encoder(LIFTED[0], Shape(16), patch_size=None, init_key=0)


def batch():
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:16, :16, :16] / 16
    waves = [np.sin(6 * (x * np.cos(i) + y * np.sin(i) + z * (i % 3))) for i in range(8)]
    values = 0.5 + 0.4 * np.array(waves)[:, None] + rng.normal(0, 0.02, (8, 1, 16, 16, 16))
    scans = torch.from_numpy(values.clip(0, 1).astype(np.float32))
    return Batch(scans, np.arange(1, 9, dtype=np.uint64), 0, seed_key=5)


def method_of(name, backbone):
    settings = ENCODERS[name].model_validate({"backbone": backbone, "strength": 0.2})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods.load(name)(make(backbone), settings, Shape(16, 1, 3)).train()


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("simclr", "slices-test_resnet"), ("dino", "slices-test_vit"), ("simclr", "inflated-test_resnet"),
     ("simmim", "inflated-test_resnet")],
)  # fmt: skip
def test_methods_learn_with_them(name, backbone):
    method = optim.place(method_of(name, backbone), torch.device("cpu"))
    views = method.views(batch())
    optimizer = optim.make_optimizer(method, 2e-3, 0.01)
    losses = [float(engine.train_step(method, optimizer, views)[0]) for _ in range(12)]
    assert np.mean(losses[-3:]) < 0.95 * losses[0]
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("name", "backbone", "said"),
    [("simmim", "slices-test_resnet", "looks at slices one by one"),
     ("simmim", "slices-test_vit", "looks at slices one by one"),
     ("mae", "slices-test_vit", "mae needs a plain ViT, and 'slices-test_vit' is none")],
)  # fmt: skip
def test_what_is_hidden_of_a_volume_is_not_seen_in_slices(name, backbone, said):
    with pytest.raises(UserError, match=said):
        method_of(name, backbone)


@pytest.mark.parametrize("backbone", LIFTED)
def test_layers_are_those_of_the_image_network(backbone):
    flat = timm.create_model(backbone.split("-", 1)[1], num_classes=0)
    assert groups.layers(make(backbone)) == groups.layers(flat)
