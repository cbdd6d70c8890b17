"""Changes of places rather than of values: local shuffling, erased boxes."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from fewscans.augment.noise import normals
from fewscans.keyed import key_of

# Rounds of shuffling, and the windows' side in each as a share of the image's: Zhou et al. 2020 shuffle within windows
# of up to a tenth of a side, so that what is far apart stays where it is.
_WINDOWS = (0.10, 0.07, 0.05)
# Orders that a window's is taken from.
_ORDERS = 1024


def shuffle(x: Tensor, start: Tensor) -> Tensor:
    """`x` [B, C, *S] with pixels in wrong places within small windows, all channels alike; keyed by `start` [B].

    Models Genesis (Zhou et al. 2020, section 2.2) takes a thousand windows one after the other. Here a round cuts the
    image into windows from a keyed corner on, and half of them are shuffled; three rounds of different windows are one
    map of indices and one gather. Pixels at the border that no whole window holds stay in that round.
    """
    shape = x.shape[2:]
    flat = _round(start, 0, _WINDOWS[0], shape)
    for turn, share in enumerate(_WINDOWS[1:], 1):
        flat = flat.gather(1, _round(start, turn, share, shape))
    index = flat[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).view_as(x)


def _round(start: Tensor, turn: int, share: float, shape: torch.Size) -> Tensor:
    """[B, n]: which pixel stands at each place, after one round."""
    b, ndim, device = len(start), len(shape), start.device
    sides = [max(2, round(share * length)) for length in shape]
    counts = [(length - side + 1) // side for length, side in zip(shape, sides, strict=True)]
    n_windows = math.prod(counts)
    drawn = normals((start + 0.29 * turn) % 1.0, ndim + n_windows)
    # Of each window its first pixel, and in a window which pixel is how far behind it; counted over the whole image.
    first = torch.zeros(b, *[1] * ndim, dtype=torch.int64, device=device)
    behind = torch.zeros([1] * ndim, dtype=torch.int64, device=device)
    for axis, (length, side, count) in enumerate(zip(shape, sides, counts, strict=True)):
        corner = (drawn[:, axis].abs() * 1000).long() % side
        place = torch.arange(count, device=device) * side + corner[:, None]
        of_axis = [-1 if i == axis else 1 for i in range(ndim)]
        first = first * length + place.view(b, *of_axis)
        behind = behind * length + torch.arange(side, device=device).view(of_axis)
    behind, first = behind.flatten(), first.flatten(1)[:, :, None]
    number = drawn[:, ndim:]
    order = (number.abs() * 10_000).long() % _ORDERS + 1
    order[number < 0] = 0  # half of the windows stay as they are
    taken = behind[_orders(len(behind), device)][order]
    made = torch.arange(math.prod(shape), device=device).repeat(b, 1)
    return made.scatter_(1, (first + behind).flatten(1), (first + taken).flatten(1))


@lru_cache(maxsize=16)
def _orders(n: int, device: torch.device) -> Tensor:
    """[1 + `_ORDERS`, n]: a fixed bank of orders of n pixels; the first leaves them where they are."""
    generator = torch.Generator().manual_seed(key_of("orders of pixels", n) % 2**63)
    made = torch.rand(1 + _ORDERS, n, generator=generator).argsort(dim=1)
    made[0] = torch.arange(n)
    return made.to(device)


def erase(x: Tensor, low: Tensor, high: Tensor, start: Tensor | None) -> Tensor:
    """`x` [B, C, *S] with a box from `low` to `high` [B, ndim] (shares of the sides, S's order) filled; in place.

    By noise about the image's mean with its deviation, from `start` [B]; without `start` by the mean.
    """
    some = torch.nonzero((low < 1).all(dim=1))[:, 0]
    if not len(some):
        return x
    part, low, high = x[some], low[some], high[some]
    inside = torch.ones(len(part), *[1] * (x.ndim - 1), dtype=torch.bool, device=x.device)
    for axis, length in enumerate(x.shape[2:]):
        place = (torch.arange(length, device=x.device) + 0.5) / length
        within = (place >= low[:, axis, None]) & (place < high[:, axis, None])
        of_axis = [length if i == axis + 1 else 1 for i in range(x.ndim - 1)]
        inside = inside & within.view(len(part), *of_axis)
    dims = tuple(range(1, x.ndim))
    filled = part.mean(dim=dims, keepdim=True)
    if start is not None:
        # The deviation by a norm: torch's own takes ten times as long on a CPU.
        off = (part - filled).flatten(1)
        sd = torch.linalg.vector_norm(off, dim=1) / math.sqrt(off.shape[1] - 1)
        noise = normals(start[some], off.shape[1]).mul_(sd[:, None]).view_as(part)
        filled = noise.add_(filled).clamp_(0, 1)
    return x.index_copy_(0, some, torch.where(inside, filled, part))
