"""Pixels in other places, erased boxes, and scans that are mixed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fewscans import augment, keyed
from fewscans.augment import local
from fewscans.augment.mix import Mixed

B = 12
KEYS = keyed.scan_keys([f"{i:016x}" for i in range(B)])


@pytest.mark.parametrize("shape", [(40, 30), (16, 12, 20)])
def test_shuffling_moves_pixels_and_not_far(shape):
    n = int(np.prod(shape))
    x = torch.arange(n).float().view(1, 1, *shape).repeat(6, 2, *[1] * len(shape))
    out = local.shuffle(x, torch.linspace(0.05, 0.95, 6))
    assert torch.equal(out[:, 0], out[:, 1]), "channels go together"
    came = out[:, 0].flatten(1).long()
    assert torch.equal(came.sort(dim=1).values, torch.arange(n).expand(6, n)), "a permutation"
    here = np.array(np.unravel_index(np.arange(n), shape))
    from_where = np.array(np.unravel_index(came.numpy(), shape))
    distance = np.abs(from_where - here[:, None])
    for axis, length in enumerate(shape):
        assert distance[axis].max() <= sum(max(2, round(s * length)) - 1 for s in (0.1, 0.07, 0.05))
    moved = (came != torch.arange(n)).float().mean(dim=1)
    assert (moved > 0.4).all()
    assert len({tuple(row.tolist()) for row in came}) == 6


@pytest.mark.parametrize("fill", ["mean", "noise"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_erased_box_has_its_area(ndim, fill):
    shape = (40,) * ndim
    x = torch.full((B, 1, *shape), 0.25)
    x[:, :, :20] = 0.75
    policy = dataclasses.replace(
        augment.Policy(), erase_share=1.0, erase_area=(0.1, 0.2), erase_with=fill
    )
    drawn = augment.draw(KEYS, seed_key=1, epoch=0, view=0, policy=policy, ndim=ndim)
    assert (drawn.erase_low >= 0).all()
    assert (drawn.erase_high <= 1 + 1e-6).all()
    box = (drawn.erase_high - drawn.erase_low).prod(dim=1)
    assert ((box > 0.099) & (box < 0.201)).all()
    out = local.erase(x.clone(), drawn.erase_low, drawn.erase_high, drawn.erase_start)
    changed = (out != x).flatten(1).float().mean(dim=1)
    torch.testing.assert_close(changed, box, rtol=0, atol=0.06)
    if fill == "mean":
        assert out[out != x].sub(0.5).abs().max() < 1e-6


def test_erasing_nobody_changes_nothing():
    x = torch.rand(B, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    policy = dataclasses.replace(augment.Policy(), erase_share=1e-9)
    drawn = augment.draw(KEYS, seed_key=1, epoch=0, view=0, policy=policy)
    assert torch.equal(local.erase(x.clone(), drawn.erase_low, drawn.erase_high, None), x)


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
@pytest.mark.parametrize("shape", [(24, 32), (10, 12, 14)])
def test_mixed_scans_are_made_of_two(mix, shape):
    x = torch.arange(float(B)).view(-1, 1, *[1] * len(shape)).repeat(1, 1, *shape)
    mixed: Mixed = mix(x, KEYS, seed_key=1, epoch=0, alpha=1.0)
    assert sorted(mixed.partner.tolist()) == list(range(B))
    assert (mixed.partner != torch.arange(B)).all()
    # As much of each as the target is told.
    expected = mixed.share * torch.arange(B) + (1 - mixed.share) * mixed.partner
    torch.testing.assert_close(mixed.x.flatten(1).mean(dim=1), expected, rtol=1e-4, atol=1e-4)
    if mix is augment.cutmix:
        for i, row in enumerate(mixed.x):
            assert set(row.unique().tolist()) <= {float(i), float(mixed.partner[i])}
    order = np.random.default_rng(0).permutation(B)
    again = mix(x[order], KEYS[order], seed_key=1, epoch=0, alpha=1.0)
    torch.testing.assert_close(again.x, mixed.x[order])


def test_mixing_is_as_often_strong_as_its_law():
    many = np.arange(4000, dtype=np.uint64)
    share = augment.mixup(torch.zeros(4000, 1, 1, 1), many, seed_key=1, epoch=0, alpha=0.4).share
    drawn = np.random.default_rng(0).beta(0.4, 0.4, 4000)
    expected = np.quantile(np.maximum(drawn, 1 - drawn), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(share.numpy(), [0.1, 0.5, 0.9]), expected, atol=0.03)
