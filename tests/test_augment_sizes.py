"""Views of another side than the scan: small crops of many, regions of large volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewscans import augment
from fewscans.augment import grid

KEYS = np.arange(1, 7, dtype=np.uint64)
WHOLE = replace(augment.policy(0.0, "ssl"), crop_area=(1.0, 1.0), crop_aspect=1.0, horizontal_flip=0.0)  # fmt: skip


def scans(ndim: int, side: int = 24) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(6, 1, *[side] * ndim)


def view(x, policy, size=None, keys=KEYS):
    return augment.apply(x, keys, seed_key=1, epoch=0, view=0, policy=policy, size=size)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_whole_at_half_the_side_is_the_mean_of_pixels(ndim):
    x = scans(ndim)
    pooled = F.avg_pool2d(x, 2) if ndim == 2 else F.avg_pool3d(x, 2)
    torch.testing.assert_close(view(x, WHOLE, 12), pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_own_side_is_no_other(ndim):
    x, policy = scans(ndim), augment.policy(1.0, "ssl")
    torch.testing.assert_close(view(x, policy, 24), view(x, policy), rtol=0, atol=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_small_view_does_not_depend_on_its_batch(ndim):
    x, policy = scans(ndim), augment.policy(1.0, "ssl").cropped(0.05, 0.4)
    everyone = view(x, policy, 8)
    assert everyone.shape == (6, 1, *[8] * ndim)
    some = [4, 1]
    torch.testing.assert_close(view(x[some], policy, 8, KEYS[some]), everyone[some], rtol=0, atol=1e-6)  # fmt: skip


def test_density_follows_the_policy_and_not_the_draw():
    policy = WHOLE
    assert grid.fineness(policy, 24, 24, 2) == 1
    assert grid.fineness(policy, 96, 24, 2) == 4
    assert grid.fineness(policy.cropped(0.05, 0.25), 96, 24, 2) == 2
    assert grid.fineness(policy.cropped(0.05, 0.125), 96, 24, 3) == 2


def test_what_is_finer_than_the_view_is_averaged_and_not_aliased():
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64).contiguous()
    made = view(stripes, WHOLE, 16, KEYS[:1])
    assert made.std() < 1e-5
    assert made.mean() == pytest.approx(0.5, abs=1e-5)
