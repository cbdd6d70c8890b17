"""Every method of the registry on the tiny networks that it can train, in 2D and 3D: for tests of their contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from engine_factory import make_known

from fewscans import methods, networks
from fewscans.config.encoders import METHODS
from fewscans.known import Known
from fewscans.methods.base import Method
from fewscans.methods.batch import Batch, Scans
from fewscans.shape import Shape

KINDS = {
    "any": ("test_resnet", "test_vit"),
    "vit": ("test_vit",),
    "convolutional": ("test_resnet",),
}
IN_3D = {"test_resnet": "monai-test-resnet", "test_vit": "monai-test-vit"}
SHAPES = {2: Shape(32), 3: Shape(16, 1, 3)}
CASES = [
    (name, net if ndim == 2 else IN_3D[net], ndim)
    for ndim in (2, 3)
    for name, model in sorted(METHODS.items())
    for net in KINDS[model.networks]
    # Of volumes one network each: it is the same code.
    if ndim == 2 or net == KINDS[model.networks][0]
    # Three patches of a ViT along an axis do not fit into 16 voxels.
]


def make(name: str, backbone: str, ndim: int, **changes) -> Method:
    """The method with keyed weights, in double precision."""
    settings = METHODS[name].model_validate(
        {"method": name, "backbone": backbone, "batch_size": 8, "patch_size": 4, **changes}
    )
    encoder = networks.make_encoder(backbone, SHAPES[ndim], patch_size=4, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = methods.load(name)(encoder, settings, SHAPES[ndim])
        method.know(known(8))
    method.begin(8, 8, 10)
    return method.double().train()


def batch(ndim: int, n: int = 8, epoch: int = 0) -> Batch:
    """Waves of different directions."""
    axes = np.meshgrid(*[np.arange(length) / length for length in SHAPES[ndim].axes], indexing="ij")
    waves = [
        np.sin(6 * (axes[-1] * np.cos(i) + axes[-2] * np.sin(i) + axes[0] * (i % 3)))
        for i in range(n)
    ]
    noise = np.random.default_rng(0).normal(0, 0.05, (n, 1, *SHAPES[ndim].axes))
    x = torch.from_numpy((0.5 + 0.4 * np.array(waves)[:, None] + noise).clip(0, 1)).float()
    keys = np.arange(1, n + 1, dtype=np.uint64)
    scans = Scans(keys, lambda rows: x[torch.as_tensor(rows)], known(n))
    return scans.batch(np.arange(n), epoch, seed_key=5)


def known(n: int) -> Known:
    """Two scans of each patient, two classes, two tables of values."""
    who = np.arange(n, dtype=np.int64)
    return replace(
        make_known(n), patient=who // 2, place=who % 2, target=who // 2 % 2, classes=("a", "b")
    )


def views_of(method: Method, made: Batch) -> tuple[torch.Tensor, ...]:
    """Views in double precision, to tell rounding from mistakes."""
    return tuple(view.double() if view.is_floating_point() else view for view in method.views(made))
