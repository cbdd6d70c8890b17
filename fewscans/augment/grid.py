"""Geometry of a view: crop, flip, rotation, scale, shear, shift and elastic displacement in one sampling grid.

One interpolation, since each further one would blur texture. Axes are counted as sampling counts them, x (the last)
first: x y in 2D, x y z in 3D. Coordinates run from -1 to 1 over the image.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fewscans.augment.noise import normals
from fewscans.augment.numbers import Numbers
from fewscans.augment.policy import Policy

AXES = "xyz"
# Cells of the elastic field along a side; a displacement beyond a third of a cell could fold the image.
ELASTIC_CELLS = 4
Array = NDArray[np.float64]


def draw_affine(numbers: Numbers, policy: Policy, ndim: int) -> Array:
    """[B, ndim, ndim + 1]: from coordinates of the view to those of the image.

    The crop's box, flipped and scaled, is sheared, then turned about its middle, then put where the crop lies.
    """
    sides = crop_sides(numbers, policy, ndim)
    size = np.exp(math.log1p(policy.scale) * numbers.signed("size"))
    flips = [policy.horizontal_flip, policy.vertical_flip, policy.depth_flip][:ndim]
    signs = [
        np.where(numbers[f"flip_{axis}"] < share, -1.0, 1.0)
        for axis, share in zip(AXES, flips, strict=False)
    ]
    box = sides * size[:, None] * np.stack(signs, axis=1)
    turn = rotation(numbers, policy, ndim)
    if policy.shear:
        turn = turn @ _shear(numbers, policy, ndim)
    # In coordinates from -1 to 1 a crop of width w has room for its middle between -(1 - w) and 1 - w.
    middle = [
        (1 - sides[:, i]) * numbers.signed(f"middle_{axis}")
        + 2 * policy.translation * numbers.signed(f"shift_{axis}")
        for i, axis in enumerate(AXES[:ndim])
    ]
    return np.concatenate([turn * box[:, None, :], np.stack(middle, axis=1)[:, :, None]], axis=2)


def crop_sides(numbers: Numbers, policy: Policy, ndim: int) -> Array:
    """[B, ndim] sides of the crop as shares of the image's.

    Their product is the area (volume), as far as no side is longer than the image; the first two differ by the aspect,
    in 3D the third differs from these by another one.
    """
    low, high = policy.crop_area
    area = low + (high - low) * numbers["area"]
    return _sides(area, math.log(policy.crop_aspect), numbers, ("aspect", "aspect_z"), ndim)


def box_sides(numbers: Numbers, area: tuple[float, float], ndim: int) -> Array:
    """[B, ndim] sides of an erased box, with aspects up to 3."""
    drawn = area[0] + (area[1] - area[0]) * numbers["erase_area"]
    return _sides(drawn, math.log(3), numbers, ("erase_aspect", "erase_aspect_z"), ndim)


def _sides(
    area: Array, log_aspect: float, numbers: Numbers, names: tuple[str, str], ndim: int
) -> Array:
    between = log_aspect * numbers.signed(names[0])
    logs = [between / 2, -between / 2]
    if ndim == 3:
        third = log_aspect * numbers.signed(names[1])
        logs = [one + third / 3 for one in logs] + [-2 / 3 * third]
    whole = np.log(area) / ndim
    return np.minimum(1, np.exp(np.stack(logs, axis=1) + whole[:, None]))


def rotation(numbers: Numbers, policy: Policy, ndim: int) -> Array:
    """[B, ndim, ndim]: in the plane last, so that it is the plane of the image that is turned."""
    made = np.tile(np.eye(ndim), (len(numbers), 1, 1))
    for i, j in reversed(list(combinations(range(ndim), 2))):
        largest = policy.rotation_deg if (i, j) == (0, 1) else policy.tilt_deg
        if not largest:
            continue
        angle = np.deg2rad(largest) * numbers.signed(f"angle_{AXES[i]}{AXES[j]}")
        one = np.tile(np.eye(ndim), (len(numbers), 1, 1))
        one[:, i, i] = one[:, j, j] = np.cos(angle)
        one[:, i, j], one[:, j, i] = -np.sin(angle), np.sin(angle)
        made = one @ made
    return made


def _shear(numbers: Numbers, policy: Policy, ndim: int) -> Array:
    made = np.tile(np.eye(ndim), (len(numbers), 1, 1))
    for i, j in combinations(range(ndim), 2):
        made[:, i, j] = policy.shear * numbers.signed(f"shear_{AXES[i]}{AXES[j]}")
    return made


def sample(
    x: Tensor,
    affine: Tensor | None,
    elastic: Tensor | None,
    start: Tensor | None,
    size: int | None = None,
    fine: int = 1,
) -> Tensor:
    """`x` [B, C, *S] at the places of `affine` [B, ndim, ndim + 1], displaced by up to `elastic` [B]; linear.

    Without `affine` it stays where it is: a copy, if it has the side already.

    Beyond the border its own values go on. The view has the side `size`, without it that of `x`; it is sampled `fine`
    times as densely and averaged, so that a crop larger than the view is not aliased.
    """
    shape = x.shape[2:] if size is None else torch.Size([size] * (x.ndim - 2))
    shape = torch.Size(fine * length for length in shape)
    if affine is None and elastic is None and shape == x.shape[2:]:
        view = x.clone()
    else:
        view = _sampled(x, affine, elastic, start, shape)
    if fine == 1:
        return view
    return (F.avg_pool2d if x.ndim == 4 else F.avg_pool3d)(view, fine)


def _sampled(
    x: Tensor,
    affine: Tensor | None,
    elastic: Tensor | None,
    start: Tensor | None,
    shape: torch.Size,
) -> Tensor:
    if affine is None:
        affine = torch.eye(x.ndim - 2, x.ndim - 1, device=x.device).expand(len(x), -1, -1)
    where = places(affine, shape)
    if elastic is not None and start is not None:
        where.add_(displacement(start, elastic, shape))
    if x.ndim == 5 and x.device.type == "cpu":
        return _sample_volume(x, where)
    return F.grid_sample(x, where.movedim(1, -1), padding_mode="border", align_corners=False)


def places(affine: Tensor, shape: torch.Size) -> Tensor:
    """[B, ndim, *S]: coordinates in the image, x first, of the pixels of a view of `shape`; -1 to 1 over the image.

    As `F.affine_grid` has them, but for rounding, in a quarter of its time: small tensors are added first.
    """
    ndim = len(shape)
    made = affine[:, :, ndim].view(len(affine), ndim, *([1] * ndim))
    for axis in range(ndim):
        length = shape[axis]
        middles = (2 * torch.arange(length, device=affine.device) + 1) / length - 1
        along = affine[:, :, ndim - 1 - axis, None] * middles
        view = [length if i == axis else 1 for i in range(ndim)]
        made = made + along.view(len(affine), ndim, *view)
    return made


def _sample_volume(x: Tensor, where: Tensor) -> Tensor:
    """`x` [B, C, D, H, W] at the places `where` [B, 3, *S]: as `F.grid_sample`, in half of its time on a CPU.

    There torch samples images with vector instructions, but volumes voxel by voxel. So slices become one tall image,
    beside it the same with each next slice as further channels, and the two are mixed by the place between the slices.
    A place is off by 1e-4 of a voxel at 32 to 64 voxels, as coordinates of a tall image are rounded.
    """
    b, c, depth, height, width = x.shape
    if depth == 1:
        return F.grid_sample(x, where.movedim(1, -1), padding_mode="border", align_corners=False)
    sizes = (width, height, depth)
    across, down, deep = (
        ((where[:, i] + 1) * (n / 2) - 0.5).clamp_(0, n - 1) for i, n in enumerate(sizes)
    )
    before = deep.floor().clamp_(max=depth - 2)
    deep -= before
    tall = (depth - 1) * height
    down.add_(before, alpha=height)
    grid = torch.stack(
        [at.mul_(2 / max(1, n - 1)).sub_(1) for at, n in ((across, width), (down, tall))], dim=1
    )
    grid = grid.view(b, 2, -1, where.shape[-1]).movedim(1, -1)
    both = torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=1).reshape(b, 2 * c, tall, width)
    view = F.grid_sample(both, grid, padding_mode="border", align_corners=True)
    one, two = view.view(b, 2 * c, *where.shape[2:]).chunk(2, dim=1)
    return torch.lerp(one, two, deep[:, None])


def fineness(policy: Policy, side: int, size: int, ndim: int) -> int:
    """How many samples along a side each pixel of a view of `size` needs, for the largest crop of a scan of `side`.

    Of the policy and not of the crops that were drawn, so that a view depends on its own scan alone.
    """
    largest = policy.crop_area[1] ** (1 / ndim) * (1 + policy.scale) * side
    return max(1, round(largest / size))


def displacement(start: Tensor, largest: Tensor, shape: torch.Size) -> Tensor:
    """[B, ndim, *S]: a smooth field, nowhere longer along an axis than `largest` [B] (share of the side); 0 at corners.

    Normal numbers at the inner nodes of a coarse grid, from keyed places `start` of the bank; made smooth by quintic
    weights between the nodes, so that the field has no kinks (Simard et al. 2003 have a Gaussian over pixels).
    """
    ndim = len(shape)
    inner = ELASTIC_CELLS - 1
    nodes = normals(start, ndim * inner**ndim).view(len(start), ndim, *([inner] * ndim))
    # A normal number lies within 2.5 deviations nearly always; the rest is cut, so that nothing folds.
    nodes = F.pad(nodes.clamp(-2.5, 2.5) / 2.5, (1, 1) * ndim)
    field = smooth_upsample(nodes, shape)
    limit = largest.clamp(max=1 / (3 * ELASTIC_CELLS)).view(-1, *([1] * (ndim + 1)))
    return field.mul_(2 * limit)  # of a side of length 2


def smooth_upsample(nodes: Tensor, shape: torch.Size) -> Tensor:
    """[B, C, *n] -> [B, C, *S]: nodes stand at the borders and evenly between, weights are 6t^5 - 15t^4 + 10t^3."""
    weights = [
        _upsampling(nodes.shape[axis], length, nodes) for axis, length in enumerate(shape, 2)
    ]
    *deep, down, across = weights
    made = torch.matmul(torch.matmul(down, nodes), across.T)
    for weight in deep:  # of volumes
        made = torch.matmul(weight, made.flatten(3)).view(*made.shape[:2], -1, *made.shape[3:])
    return made


def _upsampling(n: int, length: int, like: Tensor) -> Tensor:
    """[length, n] weights of the nodes at each pixel's middle."""
    where = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) / length * (n - 1)
    before = where.floor().clamp(max=n - 2)
    t = where - before
    t = t**3 * (t * (6 * t - 15) + 10)
    made = torch.zeros(length, n, device=like.device, dtype=like.dtype)
    rows = torch.arange(length, device=like.device)
    made[rows, before.long()] = 1 - t
    made[rows, before.long() + 1] = t
    return made
