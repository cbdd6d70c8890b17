"""A part of each scan, at the scan's own resolution: what networks smaller than the scans are trained on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans import keyed


def part(
    x: Tensor,
    keys: NDArray[np.uint64],
    *,
    seed_key: int,
    epoch: int | NDArray[np.integer],
    side: int | None,
) -> Tensor:
    """[B, C, *s] with sides of `side`, of `x` [B, C, *S]: each place equally likely, by (seed, epoch, scan).

    Scans of that side, and all without `side`, are given back as they are.
    """
    size, ndim = x.shape[-1], x.ndim - 2
    if side is None or size == side:
        return x
    u = keyed.uniform(keyed.key_of("part", seed_key), epoch, keys, 0, ndim)
    lows = np.floor(u * (size - side + 1)).astype(int)
    return torch.stack([
        one[(slice(None), *(slice(low, low + side) for low in of))]
        for one, of in zip(x, lows, strict=True)
    ])  # fmt: skip
