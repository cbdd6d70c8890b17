"""Encoders: any timm backbone and size, weights by key, plain timm when saved."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from engine_factory import make_store
from safetensors.torch import load_file, save_file

from fewscans import networks, optim
from fewscans.config.models import ComputeSettings
from fewscans.errors import UserError
from fewscans.files import write_json
from fewscans.resident import Resident
from fewscans.shape import Shape

import timm  # isort: skip  (after fewscans.networks, which makes torchvision importable)


def make(backbone="test_resnet", *, size=32, channels=1, patch_size=None, init_key=0):
    return networks.make_encoder(
        backbone, Shape(size, channels), patch_size=patch_size, init_key=init_key
    )


@pytest.fixture
def resident(tmp_path) -> Resident:
    store = make_store(tmp_path / "store", n=10, size=32)
    return Resident(store, store.scans)


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "test_convnext", "resnet10t", "test_efficientnet"]
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 48])
def test_any_backbone_channels_and_size(backbone, channels, size):
    model = make(backbone, size=size, channels=channels).eval()
    with torch.no_grad():
        found = model(torch.rand(2, channels, size, size))
    assert found.shape == (2, networks.embedding_dim(model))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vgg11", "resnet18", "vit_tiny_patch16_224"])
def test_larger_backbones(backbone):
    model = make(backbone, size=64).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, 64, 64)).shape == (1, networks.embedding_dim(model))


def test_weights_follow_from_the_key_alone():
    before = torch.random.get_rng_state()
    first = make(init_key=2**64 - 1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    again = make(init_key=2**64 - 1).state_dict()
    other = make(init_key=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [("test_vit", 48, 6), ("test_vit", 64, 8), ("test_vit", 16, 4), ("vit_tiny_patch16_224", 224, 16),
     ("test_vit", 60, 6), ("test_resnet", 48, None)],
)  # fmt: skip
def test_patch_size_follows_the_image(backbone, size, expected):
    assert networks.patch_size(backbone, Shape(size)) == expected


def test_mistakes_are_told_with_a_way_out():
    with pytest.raises(UserError, match=r"'resnt18' is not a timm model\. Did you mean 'resnet18'"):
        make("resnt18")
    with pytest.raises(UserError, match="patch_size 7 does not divide the image's side 32"):
        make("test_vit", patch_size=7)
    with pytest.raises(UserError, match="no patch of 4 to 16 pixels divides the image's side 47"):
        make("test_vit", size=47)


def test_embedding_is_the_models_output_in_eval_mode(resident):
    model = make()
    model.train()
    index = np.array([3, 0, 7, 7])
    found = networks.embed(model, resident, index, batch=3)
    assert model.training
    assert found.dtype == np.float32
    model.eval()
    with torch.no_grad():
        expected = model(resident.batch(index)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert networks.embed(model, resident, []).shape == (0, networks.embedding_dim(model))


def test_batchnorm_statistics_are_the_average_over_the_scans(resident):
    model = make()
    model.train()
    index = np.arange(8)
    networks.set_batchnorm_statistics(model, resident, index, batch=4)
    first = (
        model.conv1[0](resident.batch(index))
        if isinstance(model.conv1, torch.nn.Sequential)
        else None
    )
    norm = model.conv1[1]
    assert model.training
    assert norm.momentum == 0.1
    assert norm.training
    torch.testing.assert_close(norm.running_mean, first.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert all(not p.grad_fn and p.grad is None for p in model.parameters())
    vit = make("test_vit")
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    networks.set_batchnorm_statistics(vit, resident, index)
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())


def _save(folder, model, *, size=32, channels=1):
    folder.mkdir(exist_ok=True)
    networks.save_encoder(folder / "encoder.safetensors", model)
    write_json(
        folder / "encoder.json",
        {
            "network": model.fewscans_network,
            "input": {"size": size, "channels": channels, "range": [0, 1]},
        },
    )


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_saved_encoder_is_plain_timm(tmp_path, resident, backbone):
    model = optim.place(make(backbone, init_key=3), torch.device("cpu"))
    networks.set_batchnorm_statistics(model, resident, np.arange(10))
    expected = networks.embed(model, resident, np.arange(10))
    _save(tmp_path / "e", model)
    meta = json.loads((tmp_path / "e/encoder.json").read_text())
    plain = timm.create_model(meta["network"]["backbone"], **meta["network"]["kwargs"]).eval()
    plain.load_state_dict(load_file(tmp_path / "e/encoder.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(plain(resident.batch(range(10))).numpy(), expected, atol=1e-5)
    ours, _ = networks.load_encoder(tmp_path / "e", Shape(32, 1))
    np.testing.assert_allclose(networks.embed(ours, resident, np.arange(10)), expected, atol=1e-5)


def test_encoder_for_another_input_is_refused(tmp_path):
    _save(tmp_path / "e", make())
    with pytest.raises(UserError, match="takes 1 x 32 x 32, and the store has 3 x 32 x 32"):
        networks.load_encoder(tmp_path / "e", Shape(32, 3))
    with pytest.raises(UserError, match="takes 1 x 32 x 32, and the store has 1 x 64 x 64"):
        networks.load_encoder(tmp_path / "e", Shape(64, 1))
    (tmp_path / "e/encoder.safetensors").unlink()
    with pytest.raises(UserError, match="no encoder here"):
        networks.load_encoder(tmp_path / "e", Shape(32, 1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_foreign_weights_are_adapted_to_one_channel(tmp_path, suffix):
    source = timm.create_model("test_resnet", num_classes=1000).eval()
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(
        source.state_dict(), path
    )
    model = networks.load_pretrained("test_resnet", path, Shape(48, 3)).eval()
    mean, sd = (
        torch.tensor(source.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std")
    )
    x = torch.rand(2, 3, 48, 48)
    source.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source((x - mean) / sd), rtol=1e-4, atol=1e-5)
        grey = networks.load_pretrained("test_resnet", path, Shape(48, 1)).eval()
        found = grey.conv1[0].weight
        torch.testing.assert_close(found, source.conv1[0].weight.sum(dim=1, keepdim=True))
        assert grey(x[:, :1]).shape == (2, 96)


def test_foreign_vit_weights_are_resampled(tmp_path):
    source = timm.create_model("test_vit", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = networks.load_pretrained("test_vit", tmp_path / "w.safetensors", Shape(48, 1))
    assert model.pos_embed.shape[1] == 1 + 8 * 8
    assert model.patch_embed.proj.weight.shape[-1] == 6
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert model.pos_embed.std() > 0
    assert model.global_pool == "token"


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        networks.load_pretrained("test_resnet", tmp_path / "none.pth", Shape(32, 1))
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match="not weights of 'test_resnet'"):
        networks.load_pretrained("test_resnet", tmp_path / "vit.safetensors", Shape(32, 1))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        networks.load_pretrained("test_resnet", tmp_path / "text.pth", Shape(32, 1))


def test_pickled_objects_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        networks.load_pretrained("test_resnet", tmp_path / "evil.pth", Shape(32, 1))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_resident_batches_are_the_stores_numbers(tmp_path, dtype):
    store = make_store(tmp_path / "a", n=6, dtype=dtype)
    scans = [store.scans[i] for i in (4, 1, 5)]
    resident = Resident(store, scans)
    assert len(resident) == 3
    assert resident.shape == (1, 16, 16)
    np.testing.assert_allclose(
        resident.batch([2, 0]).numpy(), store.read([scans[2], scans[0]]), atol=1e-7
    )
    assert resident.batch([]).shape == (0, 1, 16, 16)


def test_stores_of_two_kinds_are_joined(tmp_path):
    one, two = (
        make_store(tmp_path / "a", n=4),
        make_store(tmp_path / "b", n=3, dtype="uint8", dataset="pool"),
    )
    joined = Resident.join([Resident(one, one.scans), Resident(two, two.scans)])
    expected = np.concatenate([one.read(one.scans), two.read(two.scans)])
    np.testing.assert_allclose(joined.batch(range(7)).numpy(), expected, atol=1e-6)
    assert [row[2] for row in joined.identity()] == pytest.approx([1 / 32767] * 4 + [1 / 255] * 3)
    larger = make_store(tmp_path / "c", n=2, size=32)
    with pytest.raises(UserError, match="different shapes"):
        Resident.join([Resident(one, one.scans), Resident(larger, larger.scans)])


def test_learning_rate_rises_and_falls():
    rates = [optim.lr_at(step, 100, 0.1, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0) == max(rates)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert optim.lr_at(0, 1, 0.0, 0.3) == 0.3


def test_no_decay_on_biases_norms_and_tokens():
    model = make("test_vit")
    decayed, free = optim.make_optimizer([model, model], 1e-3, 0.1).param_groups
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))
    assert all(p.ndim > 1 for p in decayed["params"])
    assert any(p is model.pos_embed for p in free["params"])


def test_cuda_that_is_not_there_is_told():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="no CUDA device"):
        optim.set_up(ComputeSettings(device="cuda"))
