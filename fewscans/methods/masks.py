"""Which places of a scan are hidden, and scans as rows of patches.

Legend: B batch, C channels, S axes of space, s places of a mask, N patches, P numbers in a patch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.errors import UserError
from fewscans.methods.batch import Batch
from fewscans.shape import Shape


def draw_masked(u: NDArray[np.float64], n_masked: int) -> Tensor:
    """Which `n_masked` of N places are masked: bool [B, N], a uniform random subset from keyed numbers `u` [B, N]."""
    order = np.argsort(u, axis=1, kind="stable")
    masked = np.zeros(u.shape, dtype=bool)
    np.put_along_axis(masked, order[:, :n_masked], True, axis=1)
    return torch.from_numpy(masked)


def draw_squares(batch: Batch, rows: int, n_masked: int) -> Tensor:
    """Which squares of each scan are masked: bool [B, *s] on its device, `rows` along each axis, keyed by scan."""
    shape = (rows,) * (batch.x.ndim - 2)
    masked = draw_masked(batch.random(math.prod(shape)), n_masked)
    return masked.view(-1, *shape).to(batch.x.device)


def n_masked_of(ratio: float, n: int) -> int:
    """Masked places of `n`: the share rounded, at least one and not all."""
    return min(max(1, round(ratio * n)), n - 1)


def patchify(x: Tensor, side: int) -> Tensor:
    """Patches [B, N, P] of scans [B, C, *S], the last axis of space running fastest; P = side^ndim * C, colour last."""
    b, c, *axes = x.shape
    n = len(axes)
    cut = x.reshape(b, c, *[part for length in axes for part in (length // side, side)])
    places, within = range(2, 2 + 2 * n, 2), range(3, 3 + 2 * n, 2)
    return cut.permute(0, *places, *within, 1).reshape(b, -1, side**n * c)


def unpatchify(patches: Tensor, side: int, shape: Shape) -> Tensor:
    """Scans [B, C, *S] of patches [B, N, P]; the inverse of `patchify`."""
    n, rows = shape.ndim, shape.size // side
    cut = patches.reshape(len(patches), *([rows] * n), *([side] * n), shape.channels)
    order = [axis for i in range(n) for axis in (1 + i, 1 + n + i)]
    return cut.permute(0, 1 + 2 * n, *order).reshape(len(patches), *shape.full)


def fitting_square(size: int, stride: int) -> int:
    """Side of masked squares: the divisor of `size` nearest to `stride`, and to a sixth of the side where that is less.

    The papers have 32 of 192 or 224 pixels. A stride of 32 at 48 pixels would leave nothing to choose from.
    """
    wanted = min(stride, size / 6)
    return min(
        (side for side in range(2, size // 2 + 1) if size % side == 0),
        key=lambda side: abs(side - wanted),
    )


def check_square(side: int, size: int) -> None:
    """Refuse masked squares that do not divide a scan.

    Raises
    ------
    UserError
        They do not, or there would be one.
    """
    if size % side or side == size:
        raise UserError(
            f"mask_patch {side} does not divide the image's side {size}. Choose a divisor of it."
        )


def enlarge(masked: Tensor, factor: int) -> Tensor:
    """Mask [B, *s] with each place `factor` times as long along every axis: bool [B, 1, *S]."""
    for axis in range(1, masked.ndim):
        masked = masked.repeat_interleave(factor, dim=axis)
    return masked[:, None]
