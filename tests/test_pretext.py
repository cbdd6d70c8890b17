"""Rotation, relative location and exemplar: the tasks are what the papers say, and the losses right to the digit."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewscans import augment, methods, networks
from fewscans.config.encoders import ENCODERS
from fewscans.methods import rotation
from fewscans.methods.base import Batch
from fewscans.shape import Shape


def make(name: str, shape: Shape, backbone: str | None = None, **changes):
    backbone = backbone or ("test_resnet" if shape.ndim == 2 else "monai-test-resnet")
    settings = ENCODERS[name].model_validate({"method": name, "backbone": backbone, **changes})
    encoder = networks.make_encoder(backbone, shape, patch_size=None, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods.load(name)(encoder, settings, shape)


def batch(shape: Shape, n: int = 4, epoch: int = 0) -> Batch:
    x = torch.rand(n, *shape.full, generator=torch.Generator().manual_seed(3))
    return Batch(x, np.arange(1, n + 1, dtype=np.uint64), epoch, seed_key=5)


@pytest.mark.parametrize(("ndim", "n"), [(2, 4), (3, 10)])
def test_rotations_are_exact_and_all_differ(ndim, n):
    x = torch.rand(2, 1, *[5] * ndim)
    turned = rotation.rotated(x)
    assert len(turned) == n
    assert torch.equal(turned[0], x)
    assert len({tuple(one.flatten().tolist()) for one in turned}) == n
    assert all(torch.equal(one.flatten().sort()[0], x.flatten().sort()[0]) for one in turned)
    # Each plane's three follow one another by a quarter turn, and a fourth would be the scan again.
    for plane in range((n - 1) // 3):
        k, axes = rotation.turns(ndim)[1 + 3 * plane]
        assert k == 1
        quarters = [x, *turned[1 + 3 * plane : 4 + 3 * plane], x]
        assert all(torch.equal(torch.rot90(a, 1, axes), b) for a, b in pairwise(quarters))


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("modality", ["any", "ct", "xray", "photograph"])
def test_an_upright_policy_turns_nothing(strength, modality):
    made = augment.policy(strength, "upright", modality)
    assert made.rotation_deg == made.tilt_deg == made.vertical_flip == made.depth_flip == 0
    assert made.horizontal_flip == (0 if modality == "xray" else 0.5)


def test_rotation_loss_is_the_mean_over_rotations_and_scans():
    method = make("rotation", Shape(16)).eval()
    x = method.views(batch(Shape(16)))[0]
    with torch.no_grad():
        found = float(method.loss(x)[0])
        total = 0.0
        for label, turned in enumerate(rotation.rotated(x)):
            for row in method.classifier(method.encoder(turned)).double().tolist():
                total += math.log(sum(math.exp(value) for value in row)) - row[label]
    assert found == pytest.approx(total / (4 * len(x)), abs=1e-6)
