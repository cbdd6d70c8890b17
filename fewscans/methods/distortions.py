"""What Models Genesis does to a scan that is to be restored (Zhou et al. 2020, arXiv 2004.07882, section 2.2).

All is drawn by key, for 2D and 3D alike. Legend: B batch, C channels, S axes of space, K boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.augment import local
from fewscans.augment.noise import normals

Array = NDArray[np.float64]

BOXES = 5
# After the first box each further one follows with this probability.
_MORE = 0.95
# Sides of boxes as shares of the scan's: painted over, and left.
_PAINTED, _LEFT = (1 / 6, 1 / 3), (3 / 7, 4 / 7)
# Points of a curve.
_POINTS = 257


def numbers(ndim: int) -> int:
    """How many keyed numbers of a scan `distorted` takes."""
    return 11 + BOXES * (1 + 2 * ndim)


def distorted(x: Tensor, u: Array, settings: Any) -> Tensor:
    """`x` [B, C, *S] in [0, 1] as `u` [B, numbers] and the rates of `settings` say."""
    start = torch.from_numpy(u[:, 10].astype(np.float32)).to(x.device)

    def chosen(where: Array) -> Tensor:
        return torch.from_numpy(where).to(x.device).view(-1, *[1] * (x.ndim - 1))

    bent = chosen(u[:, 0] < settings.nonlinear_rate)
    out = torch.where(bent, through_curves(x, curves(u[:, 1:6])), x)
    mixed = torch.nonzero(chosen(u[:, 6] < settings.shuffle_rate).flatten())[:, 0]
    if len(mixed):
        out[mixed] = local.shuffle(out[mixed], start[mixed])
    inside = u[:, 8] < settings.inpaint_share
    over = painted(u[:, 11:], inside, x.shape[2:]).to(x.device)
    noise = torch.special.ndtr(normals(start, x[0].numel())).view_as(x)  # uniform in (0, 1)
    return torch.where(over & chosen(u[:, 7] < settings.paint_rate), noise, out)


def curves(u: Array) -> Tensor:
    """Monotone curves [B, points] from [0, 1] to [0, 1]: cubic Bezier with two drawn control points.

    Of `u` [B, 5] four numbers are the points, and the last one says whether the curve falls.
    """
    t = np.linspace(0, 1, _POINTS)
    x1, y1, x2, y2 = (u[:, i, None] for i in range(4))
    first, second = 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t)
    xs = first * x1 + second * x2 + t**3
    ys = first * y1 + second * y2 + t**3
    ys = np.where(u[:, 4:] < 0.5, ys, ys[:, ::-1])
    made = np.stack([np.interp(t, a, b) for a, b in zip(xs, ys, strict=True)])
    return torch.from_numpy(made.astype(np.float32))


def through_curves(x: Tensor, curve: Tensor) -> Tensor:
    """`x` [B, C, *S] in [0, 1], each scan through its own of the curves [B, points], linear between points."""
    curve = curve.to(x.device)
    place = x.flatten(1) * (curve.shape[1] - 1)
    low = place.floor().clamp(0, curve.shape[1] - 2)
    index = low.long()
    left, right = curve.gather(1, index), curve.gather(1, index + 1)
    return torch.lerp(left, right, place - low).view_as(x)


def painted(u: Array, inside: NDArray[np.bool_], shape: torch.Size) -> Tensor:
    """Bool [B, 1, *S]: what is painted over, boxes where `inside` [B], else all but boxes; up to five overlap."""
    b, ndim = len(u), len(shape)
    u = u.reshape(b, BOXES, 1 + 2 * ndim)
    on = np.cumprod(np.where(np.arange(BOXES) == 0, True, u[:, :, 0] < _MORE), axis=1).astype(bool)
    low, high = np.where(inside[:, None], _PAINTED, _LEFT).T
    sides = low[:, None, None] + (high - low)[:, None, None] * u[:, :, 1 : 1 + ndim]
    corner = u[:, :, 1 + ndim :] * (1 - sides)
    boxes = torch.from_numpy(on).view(b, BOXES, *[1] * ndim)
    for axis, length in enumerate(shape):
        place = (np.arange(length) + 0.5) / length
        a, z = corner[:, :, axis, None], (corner + sides)[:, :, axis, None]
        within = torch.from_numpy((place >= a) & (place < z))
        boxes = boxes & within.view(b, BOXES, *[length if i == axis else 1 for i in range(ndim)])
    covered = boxes.any(dim=1, keepdim=True)
    return covered == torch.from_numpy(inside).view(b, 1, *[1] * ndim)
