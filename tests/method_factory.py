"""A method with keyed weights, and a batch of noise, for tests of single methods."""

from __future__ import annotations

import numpy as np
import torch

from fewscans import methods, networks
from fewscans.config.encoders import ENCODERS
from fewscans.methods.base import Batch
from fewscans.shape import Shape


def make(name: str, shape: Shape, backbone: str | None = None, **changes):
    backbone = backbone or ("test_resnet" if shape.ndim == 2 else "monai-test-resnet")
    given = ENCODERS[name].model_validate({"method": name, "backbone": backbone, **changes})
    encoder = networks.make_encoder(backbone, shape, patch_size=given.patch_size, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods.load(name)(encoder, given, shape)


def batch(shape: Shape, n: int = 4, epoch: int = 0) -> Batch:
    x = torch.rand(n, *shape.full, generator=torch.Generator().manual_seed(3))
    return Batch(x, np.arange(1, n + 1, dtype=np.uint64), epoch, seed_key=5)
