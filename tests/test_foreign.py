"""Weights of MONAI's classes and of other networks of volumes, from files."""

from __future__ import annotations

import logging

import pytest
import torch
from monai.networks.nets import BasicUNet, ResNet, ViT

from fewscans import networks
from fewscans.errors import UserError
from fewscans.networks import foreign
from fewscans.shape import Shape
from fewscans.weights import fetch

VOXELS = Shape(32, 1, 3)


@pytest.fixture(autouse=True)
def keyed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def resnet(**changes):
    """As MONAI makes it, with the widths of `monai-test-resnet`."""
    given = {
        "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64], "n_input_channels": 1,
        "num_classes": 4, **changes,
    }  # fmt: skip
    return ResNet(**given).eval()


def vit(size=32, **changes):
    given = {
        "in_channels": 1, "img_size": (size,) * 3, "patch_size": 8, "hidden_size": 64, "mlp_dim": 256, "num_layers": 4,
        "num_heads": 4, **changes,
    }  # fmt: skip
    return ViT(**given).eval()


def load(backbone, path, shape=VOXELS, patch_size=None):
    return networks.load_pretrained(backbone, path, shape, patch_size=patch_size).eval()


def saved(folder, state, name="w.pth"):
    torch.save(state, folder / name)
    return folder / name


@pytest.mark.parametrize("before", ["", "module.", "module.encoder."])
@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_a_resnet_as_medicalnet_has_it(tmp_path, caplog, before, wrapped):
    source = resnet(bias_downsample=False)
    state = {before + name: value for name, value in source.state_dict().items()}
    if before:  # MedicalNet's have no classifier
        state = {name: value for name, value in state.items() if ".fc." not in name}
    path = saved(tmp_path, {"epoch": 3, "state_dict": state} if wrapped else state)
    with caplog.at_level(logging.INFO, "fewscans"):
        model = load("monai-test-resnet", path)
    assert ("left out, as an encoder has none: fc" in caplog.text) == (not before)
    source.fc = torch.nn.Identity()
    x = torch.rand(2, 1, 32, 32, 32)
    torch.testing.assert_close(model(x), source(x))


@pytest.mark.parametrize("switches", [{"shortcut_type": "A"}, {"bias_downsample": True}])
@torch.no_grad()
def test_shortcuts_are_those_of_the_file_and_are_kept(tmp_path, switches):
    source = resnet(**switches)
    model = load("monai-test-resnet", saved(tmp_path, source.state_dict()))
    source.fc = torch.nn.Identity()
    x = torch.rand(2, 1, 32, 32, 32)
    torch.testing.assert_close(model(x), source(x))
    again = networks.build(**model.fewscans_network)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(x), source(x))


@torch.no_grad()
def test_channels_are_summed_or_shared_out(tmp_path):
    colours = resnet(n_input_channels=3, bias_downsample=False)
    grey = load("monai-test-resnet", saved(tmp_path, colours.state_dict()))
    x = torch.rand(2, 1, 32, 32, 32)
    colours.fc = torch.nn.Identity()
    torch.testing.assert_close(grey(x), colours(x.expand(-1, 3, -1, -1, -1)))
    path = saved(tmp_path, grey.state_dict(), "grey.pth")
    back = load("monai-test-resnet", path, Shape(32, 3, 3))
    torch.testing.assert_close(back(x.expand(-1, 3, -1, -1, -1)), grey(x))
    two = resnet(n_input_channels=2, bias_downsample=False).state_dict()
    with pytest.raises(UserError, match="take 2 channels, and the recipe makes 3"):
        load("monai-test-resnet", saved(tmp_path, two), Shape(32, 3, 3))


@torch.no_grad()
def test_a_vit_of_the_same_size_and_of_another(tmp_path):
    source = vit(qkv_bias=True)
    path = saved(tmp_path, {f"vit.{n}": v for n, v in source.state_dict().items()})
    x = torch.rand(2, 1, 32, 32, 32)
    same = load("monai-test-vit", path, patch_size=8)
    torch.testing.assert_close(same(x), source(x)[0].mean(dim=1))
    larger = load("monai-test-vit", path, Shape(48, 1, 3), patch_size=8)
    own = source.patch_embedding.position_embeddings
    made = larger.patch_embedding.position_embeddings
    assert made.shape == (1, 6**3, 64)
    cube = own.transpose(1, 2).reshape(1, 64, 4, 4, 4)
    expected = torch.nn.functional.interpolate(cube, size=(6, 6, 6), mode="trilinear")
    torch.testing.assert_close(made[0], expected.flatten(2)[0].T)
    assert torch.equal(larger.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    with pytest.raises(
        UserError, match=r"patches have 8 voxels, and these 4. Write `patch_size: 8`"
    ):
        load("monai-test-vit", path, patch_size=4)


@torch.no_grad()
def test_a_vit_without_biases_and_with_a_class_token(tmp_path, caplog):
    source = vit(classification=True)
    state = {n: v for n, v in source.state_dict().items() if "cross_attn" not in n}  # older MONAI
    with caplog.at_level(logging.INFO, "fewscans"):
        model = load("monai-test-vit", saved(tmp_path, state), patch_size=8)
    assert "left out, as an encoder has none: cls_token, classification_head" in caplog.text
    assert model.blocks[0].attn.qkv.bias is None
    assert torch.equal(model.blocks[3].mlp.linear2.weight, source.blocks[3].mlp.linear2.weight)


@torch.no_grad()
def test_a_unet_without_its_decoder(tmp_path, caplog):
    source = BasicUNet(features=(8, 8, 16, 32, 64, 8)).eval()
    with caplog.at_level(logging.INFO, "fewscans"):
        model = load("monai-test-unet", saved(tmp_path, source.state_dict()))
    assert "upcat_4" in caplog.text
    x = torch.rand(1, 1, 32, 32, 32)
    seen = []
    source.down_4.register_forward_hook(lambda *of: seen.append(of[2]))
    source(x)
    torch.testing.assert_close(model(x), seen[0].flatten(2).mean(dim=2))


@pytest.mark.parametrize(
    ("state", "said"),
    [(lambda: {n: v for n, v in resnet().state_dict().items() if "layer4" not in n}, "parameters are not in it"),
     (lambda: resnet(layers=[1, 1, 1, 2]).state_dict(), r"of a larger network \(layer4\.1"),
     (lambda: resnet(block_inplanes=[4, 8, 16, 32]).state_dict(), "conv1.weight is 4 x 1 x 7 x 7 x 7, not 8 x"),
     (lambda: resnet(spatial_dims=2).state_dict(), "they take images, and the recipe makes volumes"),
     (lambda: vit().state_dict(), "parameters are not in it")],
)  # fmt: skip
def test_weights_of_another_network_are_refused(tmp_path, state, said):
    with pytest.raises(UserError, match=f"not weights of 'monai-test-resnet': .*{said}"):
        load("monai-test-resnet", saved(tmp_path, state()))


def test_pickled_objects_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read as weights.*Save the state dict alone"):
        load("monai-test-resnet", saved(tmp_path, resnet()))


@torch.no_grad()
def test_an_inflated_network_starts_from_weights_of_volumes(tmp_path):
    shape = Shape(16, 1, 3)
    source = networks.make_encoder("inflated-test_resnet", shape, patch_size=None, init_key=5)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    model = load("inflated-test_resnet", saved(tmp_path, state), shape)
    x = torch.rand(2, 1, 16, 16, 16)
    torch.testing.assert_close(model(x), source.eval()(x))


@pytest.mark.parametrize("backbone", ["monai-test-resnet", "monai-test-vit"])
def test_frozen_weights_from_a_file_are_an_encoder(tmp_path, backbone):
    state = (resnet() if "resnet" in backbone else vit(48)).state_dict()
    path = saved(tmp_path, state)
    assert foreign.monai_shape("monai-test-vit", vit(48).state_dict()) == (Shape(48, 1, 3), 8)
    fetch(backbone, str(path), tmp_path / "encoder")
    model = load(backbone, tmp_path / "encoder/encoder.safetensors", patch_size=8)
    assert model(torch.rand(1, 1, 32, 32, 32)).shape == (1, 64)
    with pytest.raises(UserError, match="not weights of 'monai-test-unet'"):
        fetch("monai-test-unet", str(path), None)
    with pytest.raises(UserError, match="give a local file"):
        fetch(backbone, "hub", None)
