"""Jobs of lifted networks on volumes, by the scripts: pretraining, weights from a file, what is made of either."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from finetune_factory import TUNE, make_params
from labelled_factory import make_tiny
from safetensors.torch import load_file, save_file

from fewscans import networks
from fewscans.contracts import read_table
from fewscans.shape import Shape
from fewscans.store import Store

import timm  # isort: skip  (after fewscans.networks, which makes torchvision importable)

RECIPE = {"ndim": 3, "size": 16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("volumes"), n_patients=10, n_test=4, ndim=3)


@pytest.fixture
def weights(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def pretrain(script, tiny, out, settings, *more, recipe=RECIPE):
    params = {
        "encoder": "mine", "settings": {"epochs": 1, "batch_size": 8, **settings}, "recipe": recipe,
        "dataset": "tiny", "fold": "0", "seed": 0,
    }  # fmt: skip
    arguments = ["--store", tiny["store"], "--folds", tiny["folds"], "--out", out, *more]
    arguments += ["--cache", out.parent / "cache", "--checkpoints", out.parent / "checkpoints"]
    arguments += ["--params", json.dumps(params)]
    assert script("pretrain").main([str(word) for word in arguments]) == 0
    return json.loads((out / "encoder.json").read_text())


def finetune(script, tiny, folder, params, *more):
    """(predictions, embeddings)."""
    arguments = ["--params", params.model_dump_json(), "--cache", folder / "cache", *more]
    for name in ("store", "labels", "folds", "budgets"):
        arguments += [f"--{name}", tiny[name]]
    arguments += ["--predictions", folder / "p.parquet", "--embeddings", folder / "embeddings"]
    assert script("finetune").main([str(word) for word in arguments]) == 0
    made = folder / "embeddings/embeddings.npy"
    return read_table(folder / "p.parquet", "predictions"), np.load(made) if made.exists() else None


def settings_of(method, backbone):
    return {"settings": {"method": method, "backbone": backbone}, "recipe": RECIPE}


@pytest.mark.parametrize("backbone", ["slices-test_resnet", "inflated-test_resnet"])
def test_pretrained_fine_tuned_and_its_weights_are_plain(script, tiny, tmp_path, weights, backbone):
    settings = {"method": "simclr", "backbone": backbone, "start": "x/w.safetensors"}
    facts = pretrain(script, tiny, tmp_path / "encoder", settings, "--start", weights)
    assert facts["input"]["ndim"] == 3
    assert facts["network"]["standardise"]
    params = make_params(
        "simclr", ["linear", "finetune"], {**TUNE, "steps": 2}, **settings_of("simclr", backbone)
    )
    found, made = finetune(script, tiny, tmp_path, params, "--encoder", tmp_path / "encoder")
    assert {arm.rpartition(".")[2] for arm in found["arm"]} == {"linear", "finetune"}
    assert made.shape == (20, 96)
    if backbone.startswith("slices"):
        flat = timm.create_model("test_resnet", **facts["network"]["kwargs"])
        flat.load_state_dict(load_file(tmp_path / "encoder/encoder.safetensors"))


@pytest.mark.parametrize("backbone", ["slices-test_resnet", "inflated-test_resnet"])
def test_imagenet_from_a_file_gives_what_the_image_network_gives(
    script, tiny, tmp_path, weights, backbone
):
    """The volumes are alike along depth."""
    folder = tmp_path / "encoder"
    arguments = ["--backbone", backbone, "--weights", str(weights), "--out", str(folder)]
    assert script("weights").main(arguments) == 0
    params = make_params("imagenet", ["linear"], **settings_of("imagenet", backbone))
    _, made = finetune(script, tiny, tmp_path, params, "--encoder", folder)
    flat = networks.load_pretrained("test_resnet", weights, Shape(16)).eval()
    x = np.load(tiny["store"] / "voxels.npy")[:, :, 3] / np.float32(255)
    with torch.no_grad():
        expected = flat(torch.from_numpy(x)).numpy()
    rows = read_table(tmp_path / "embeddings/embeddings.parquet", "embeddings")["scan"]
    expected = expected[[Store.open(tiny["store"]).row_of(scan) for scan in rows]]
    np.testing.assert_allclose(made.astype(np.float32), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("method", "protocol"), [("random", "linear"), ("scratch", "finetune")])
@pytest.mark.parametrize("backbone", ["slices-test_resnet", "inflated-test_resnet"])
def test_baselines(script, tiny, tmp_path, method, protocol, backbone):
    tune = {**TUNE, "steps": 2}
    params = make_params(method, [protocol], tune, **settings_of(method, backbone))
    found, _ = finetune(script, tiny, tmp_path, params)
    assert np.isfinite(np.stack(found["prob"])).all()


def test_medicalnets_weights_start_a_training_and_are_a_baseline(script, tiny, tmp_path):
    shape = Shape(16, 1, 3)
    source = networks.make_encoder("monai-test-resnet", shape, patch_size=None, init_key=9)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.pth")
    settings = {
        "method": "simclr",
        "backbone": "monai-test-resnet",
        "start": "./net.pth",
        "lr": 1e-12,
    }
    facts = pretrain(script, tiny, tmp_path / "e", settings, "--start", tmp_path / "net.pth")
    assert facts["parents"][0]["method"] == "weights"
    made = load_file(tmp_path / "e/encoder.safetensors")
    torch.testing.assert_close(made["layer4.0.conv1.weight"], state["module.layer4.0.conv1.weight"])
    folder = tmp_path / "weights"
    arguments = ["--backbone", "monai-test-resnet", "--weights", str(tmp_path / "net.pth")]
    assert script("weights").main([*arguments, "--out", str(folder)]) == 0
    params = make_params("imagenet", ["linear"], **settings_of("imagenet", "monai-test-resnet"))
    _, made = finetune(script, tiny, tmp_path, params, "--encoder", folder)
    assert made.shape == (20, 64)
