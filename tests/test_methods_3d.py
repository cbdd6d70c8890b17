"""The contract of a method on volumes, with MONAI's networks, for every name in the registry."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from engine_factory import make_known

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import ENCODERS
from fewscans.methods.base import Batch
from fewscans.methods.batch import Scans
from fewscans.networks import monai_nets
from fewscans.shape import Shape

N, SHAPE = 8, Shape(16, 1, 3)
CASES = [
    *((name, "monai-test-resnet") for name in sorted(methods.METHODS) if name != "mae"),
    ("mae", "monai-test-vit"),
    ("simclr", "monai-test-vit"),
    ("simmim", "monai-test-vit"),
]
# With the usual margin all eight scans are soon far apart, and nothing is left to learn.
HARD = {"exemplar": {"margin": 2.0}}
# MONAI's blocks have a norm for cross attention, which an encoder does not use.
UNUSED = "norm_cross_attn"


def make(name: str, backbone: str, **changes):
    settings = ENCODERS[name].model_validate({"method": name, "backbone": backbone, **changes})
    encoder = networks.make_encoder(backbone, SHAPE, patch_size=4, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.load(name)(encoder, settings, SHAPE)
        method.know(make_known(N))
        return method


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:16, :16, :16] / 16
    waves = [np.sin(6 * (x * np.cos(i) + y * np.sin(i) + z * (i % 3))) for i in range(N)]
    values = 0.5 + 0.4 * np.array(waves)[:, None] + rng.normal(0, 0.02, (N, 1, 16, 16, 16))
    pixels = torch.from_numpy(values.clip(0, 1).astype(np.float32))
    keys = np.arange(1, N + 1, dtype=np.uint64)
    scans = Scans(keys, lambda rows: pixels[torch.as_tensor(rows)], make_known(N))
    return scans.batch(np.arange(N), 0, 5)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_learns_volumes(batch, name, backbone):
    method = optim.place(
        make(name, backbone, strength=0.2, **HARD.get(name, {})), torch.device("cpu")
    ).train()
    views = method.views(batch)
    assert all(len(view) == N for view in views)
    optimizer = optim.make_optimizer(method, 2e-3, 0.01)
    losses = [float(engine.train_step(method, optimizer, views)[0]) for _ in range(20)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    dead = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [n for n in dead if UNUSED not in n] == []


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_the_trained_encoder_is_still_plain_monai(batch, name, backbone):
    method = make(name, backbone)
    engine.train_step(method, optim.make_optimizer(method, 1e-3, 0.01), method.views(batch))
    network = method.encoder.fewscans_network
    plain = monai_nets.build(network["backbone"], network["kwargs"])
    plain.load_state_dict(copy.deepcopy(method.encoder.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(batch.x), method.encoder.eval()(batch.x))


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_same_key_same_loss_and_an_own_one_each_epoch(batch, name, backbone):
    first, second = make(name, backbone), make(name, backbone)
    one = first.loss(*first.views(batch))[0]
    assert torch.equal(one, second.loss(*second.views(batch))[0])
    later = Batch(batch.x, batch.keys, 1, batch.seed_key, batch.rows, batch.scans)
    assert not torch.equal(one, first.loss(*first.views(later))[0])
