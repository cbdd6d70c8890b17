"""Scans larger than what a network is given at once: parts in training, means over parts elsewhere."""

from __future__ import annotations

import copy
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from finetune_factory import TUNE, make_params
from labelled_factory import make_tiny
from pydantic import ValidationError
from test_lifted_jobs import finetune, pretrain

from fewscans import augment, networks
from fewscans.config.models import RecipeSettings
from fewscans.contracts import read_table
from fewscans.keyed import key_of
from fewscans.known import Known
from fewscans.methods.batch import Scans
from fewscans.resident import Resident
from fewscans.shape import Shape, starts
from fewscans.store import Store


def test_parts_reach_from_end_to_end_and_overlap():
    assert starts(64, 64) == [0]
    assert starts(64, 48) == [0, 16]
    assert starts(112, 64) == [0, 48]
    assert starts(113, 64) == [0, 24, 49]
    for size, side in product(range(32, 200, 7), (16, 32, 64)):
        made = starts(size, side)
        assert made[0] == 0
        assert made[-1] == max(0, size - side)
        assert all(b - a <= 0.75 * side + 1 for a, b in pairwise(made))
    assert RecipeSettings(size=112, crop=64, ndim=3).parts == 8
    assert RecipeSettings(size=112, ndim=3).parts == 1


def test_a_part_must_be_smaller_than_the_scan():
    for crop in (64, 96):
        with pytest.raises(ValidationError, match=r"must be less than `size` \(64\)"):
            RecipeSettings(size=64, crop=crop)
    made = RecipeSettings(size=64, crop=32)
    assert (made.shape, made.seen) == (Shape(64), Shape(32))


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_part_is_keyed_untouched_and_anywhere(ndim):
    keys = np.arange(1, 401, dtype=np.uint64)
    row = torch.arange(6.0)
    place = torch.stack(
        torch.meshgrid(*[row] * ndim, indexing="ij")
    )  # each pixel tells where it is
    x = place.expand(400, *place.shape)
    found = augment.part(x, keys, seed_key=3, epoch=0, side=4)
    lows = found.flatten(2)[:, :, 0]
    for axis in range(ndim):  # each of the three places about as often
        counts = torch.bincount(lows[:, axis].long(), minlength=3)
        assert counts.min() > 100
    one = [int(low) for low in lows[7]]
    assert torch.equal(found[7], x[(7, slice(None), *(slice(low, low + 4) for low in one))])
    alone = augment.part(x[7:8], keys[7:8], seed_key=3, epoch=np.array([0]), side=4)
    assert torch.equal(alone[0], found[7])
    assert not torch.equal(augment.part(x, keys, seed_key=3, epoch=1, side=4), found)
    assert augment.part(x, keys, seed_key=3, epoch=0, side=6) is x


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "slices-test_vit", "monai-test-vit"]
)
@torch.no_grad()
def test_embeddings_are_means_over_parts(backbone):
    ndim = 2 if backbone.startswith("test") else 3
    plain = networks.make_encoder(backbone, Shape(16, 1, ndim), patch_size=8, init_key=0).eval()
    model = networks.in_parts(copy.deepcopy(plain), 16)
    assert list(model.state_dict()) == list(plain.state_dict())
    x = torch.rand(2, 1, *[26] * ndim)
    parts = [
        x[(..., *(slice(low, low + 16) for low in lows))] for lows in product([0, 10], repeat=ndim)
    ]
    expected = torch.stack([plain(part) for part in parts]).mean(dim=0)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(parts[0]), plain(parts[0]))
    torch.testing.assert_close(copy.deepcopy(model)(x), expected, rtol=1e-4, atol=1e-6)


RECIPE = {"ndim": 3, "size": 16, "crop": 12}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("volumes"), n_patients=10, n_test=4, ndim=3)


@pytest.mark.parametrize(
    ("method", "backbone"), [("simclr", "inflated-test_resnet"), ("mae", "monai-test-vit")]
)
def test_trained_on_parts_judged_by_whole_scans(script, tiny, tmp_path, method, backbone):
    encoder = {"method": method, "backbone": backbone, "patch_size": 4}
    facts = pretrain(script, tiny, tmp_path / "encoder", encoder, recipe=RECIPE)
    assert facts["input"]["size"] == 12
    assert facts["part_of"] == Shape(16, 1, 3).facts()
    with np.load(tmp_path / "encoder/views.npz") as views:
        assert views["original"].shape[1:] == (1, 12, 12)
    settings = {key: encoder[key] for key in ("method", "backbone", "patch_size")}
    params = make_params(
        method, ["linear", "finetune"], {**TUNE, "steps": 2}, settings=settings, recipe=RECIPE
    )
    _, made = finetune(script, tiny, tmp_path, params, "--encoder", tmp_path / "encoder")
    model, _ = networks.load_encoder(tmp_path / "encoder", Shape(12, 1, 3))
    store = Store.open(tiny["store"])
    whole = Resident(store, store.scans).batch(range(20))
    parts = [
        whole[(..., *(slice(low, low + 12) for low in lows))] for lows in product([0, 4], repeat=3)
    ]
    with torch.no_grad():
        expected = torch.stack([model.eval()(part) for part in parts]).mean(dim=0).numpy()
    rows = read_table(tmp_path / "embeddings/embeddings.parquet", "embeddings")["scan"]
    expected = expected[[store.row_of(scan) for scan in rows]]
    np.testing.assert_allclose(made.astype(np.float32), expected, rtol=2e-3, atol=2e-3)


def test_each_scan_and_epoch_has_another_part_and_its_views_the_same_one():
    x = torch.rand(8, 1, 16, 16)
    keys = np.arange(1, 9, dtype=np.uint64)
    scans = Scans(keys, lambda rows: x[torch.from_numpy(rows)], Known.nothing(8), 12)
    rows = np.array([3, 5])
    first, later = scans.batch(rows, 0, key_of("s")), scans.batch(rows, 1, key_of("s"))
    assert first.x.shape == (2, 1, 12, 12)
    assert not torch.equal(first.x, later.x)
    assert torch.equal(scans.batch(rows[::-1].copy(), 0, key_of("s")).x[1], first.x[0])
    assert first.companions("patient").x.shape == (2, 1, 12, 12)
