"""Weights from elsewhere: files and the hub."""

from __future__ import annotations

import json

import numpy as np
import pytest
from finetune_factory import (
    make_files,
    make_params,
)
from labelled_factory import make_tiny

from fewscans.errors import UserError
from fewscans.finetune import finetune
from fewscans.weights import fetch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_three_channels_serve_one(tiny, tmp_path, suffix):
    import timm
    import torch
    from safetensors.torch import save_file

    model = timm.create_model("test_resnet")
    file = tmp_path / f"weights.{suffix}"
    save_file(model.state_dict(), file) if suffix == "safetensors" else torch.save(
        model.state_dict(), file
    )
    folder = tmp_path / "encoder"
    fetch("test_resnet", str(file), folder)
    facts = json.loads((folder / "encoder.json").read_text())
    assert (facts["method"], facts["source_scans"], facts["weights_from"]) == (
        "imagenet",
        [],
        file.name,
    )
    files = make_files(tiny, tmp_path, encoder=folder)
    finetune(make_params("imagenet", ["linear"]), files)
    assert np.load(files.embeddings / "embeddings.npy").shape == (40, 96)


def test_weights_that_cannot_be_had_are_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    way_out = "give a local file: `imagenet_weights: {test_resnet: PATH}` in the config"
    with pytest.raises(UserError, match="the hub cannot be reached") as error:
        fetch("test_resnet", "hub", tmp_path)
    assert way_out in str(error.value)
    with pytest.raises(
        UserError, match=r"^backbone 'test_vit4': timm has no pretrained weights for it"
    ):
        fetch("test_vit4", "hub", tmp_path)
    with pytest.raises(UserError, match=r"^backbone 'resnet_18' is not a timm model"):
        fetch("resnet_18", "hub", tmp_path)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        fetch("test_resnet", str(tmp_path / "text.pth"), tmp_path)
