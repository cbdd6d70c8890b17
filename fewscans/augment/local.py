"""Changes of places rather than of values: local shuffling, erased boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from fewscans.augment.noise import normals

# Rounds of shuffling, and the windows' side in each as a share of the image's: Zhou et al. 2020 shuffle within windows
# of up to a tenth of a side, so that what is far apart stays where it is.
_WINDOWS = (0.10, 0.07, 0.05)
# Windows of a round that are shuffled.
_SHARE = 0.5


def shuffle(x: Tensor, start: Tensor) -> Tensor:
    """`x` [B, C, *S] with pixels in wrong places within small windows, all channels alike; keyed by `start` [B].

    Models Genesis (Zhou et al. 2020, section 2.2) takes a thousand windows one after the other. Here a round cuts the
    image into windows from a keyed corner on, and half of them are shuffled; three rounds of different windows are one
    map of indices and one gather.
    """
    shape = x.shape[2:]
    n = int(torch.tensor(shape).prod())
    flat = torch.arange(n, device=x.device).expand(len(x), n)
    for turn, share in enumerate(_WINDOWS):
        flat = flat.gather(1, _round(start, turn, share, shape))
    index = flat[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).view_as(x)


def _round(start: Tensor, turn: int, share: float, shape: torch.Size) -> Tensor:
    """[B, n]: which pixel stands at each place, after one round."""
    b, ndim, device = len(start), len(shape), start.device
    # A number for each place: sorting by (window, number) shuffles within the windows.
    n = int(torch.tensor(shape).prod())
    drawn = normals((start + 0.29 * turn) % 1.0, n + ndim + n)
    window = torch.zeros(b, *shape, dtype=torch.int64, device=device)
    for axis, length in enumerate(shape):
        side = max(2, round(share * length))
        corner = (drawn[:, n + axis].abs() * 1000).long() % side
        place = torch.arange(length, device=device)[None] + corner[:, None]
        view = [b if i == 0 else length if i == axis + 1 else 1 for i in range(ndim + 1)]
        window = window * (length // side + 2) + (place // side).view(view)
    window = window.flatten(1)
    # Windows that stay: their pixels keep their order.
    moves = drawn[:, n + ndim :].gather(1, window % n) < torch.distributions.Normal(0, 1).icdf(
        torch.tensor(_SHARE)
    )
    order = torch.arange(n, device=device).expand(b, n) / n
    key = window.double() * 8 + torch.where(
        moves, drawn[:, :n].clamp(-3, 3).double() + 3, order.double()
    )
    sorted_by = key.argsort(dim=1)
    # Places of a window in their own order get its pixels in the drawn order.
    places = (window.double() + order.double() * 0.5).argsort(dim=1)
    made = torch.empty_like(sorted_by)
    return made.scatter_(1, places, sorted_by)


def erase(x: Tensor, low: Tensor, high: Tensor, start: Tensor | None) -> Tensor:
    """`x` [B, C, *S] with a box from `low` to `high` [B, ndim] (shares of the sides, S's order) filled; in place.

    By noise about the image's mean with its deviation, from `start` [B]; without `start` by the mean.
    """
    inside = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    for axis, length in enumerate(x.shape[2:]):
        place = (torch.arange(length, device=x.device) + 0.5) / length
        within = (place >= low[:, axis, None]) & (place < high[:, axis, None])
        inside &= within.view(len(x), *[length if i == axis + 1 else 1 for i in range(x.ndim - 1)])
    dims = tuple(range(1, x.ndim))
    filled = x.mean(dim=dims, keepdim=True).expand_as(x)
    if start is not None:
        noise = normals(start, x[0].numel()).view_as(x)
        filled = (filled + noise * x.std(dim=dims, keepdim=True)).clamp_(0, 1)
    return x.copy_(torch.where(inside, filled, x))
