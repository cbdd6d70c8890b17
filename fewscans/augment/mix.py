"""Mixing scans of a batch: mixup and cutmix, with the share of each in the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.keyed import key_of, uniform

# One for all scans, or one for each.
Epoch = int | NDArray[np.integer]


@dataclass(frozen=True)
class Mixed:
    """Scans mixed with partners of the same batch."""

    x: Tensor
    """[B, C, *S]."""
    partner: Tensor
    """[B]: position of the partner."""
    share: Tensor
    """[B] float32 in (0, 1]: of the scan itself; ``share * loss(own) + (1 - share) * loss(partner's)``."""


def mixup(
    x: Tensor, keys: NDArray[np.uint64], *, seed_key: int, epoch: Epoch, alpha: float
) -> Mixed:
    """Weighted means of scans and partners, shares from Beta(alpha, alpha), at least a half (Zhang et al. 2018, eq. 1).

    A share below a half is that of the partner: the pair is the same, and a scan counts most in its own row.
    """
    partner, share = _draw(keys, key_of("mixup", seed_key), epoch, alpha, x.device)
    column = share.view(-1, *([1] * (x.ndim - 1)))
    return Mixed(torch.lerp(x[partner], x, column), partner, share)


def cutmix(
    x: Tensor, keys: NDArray[np.uint64], *, seed_key: int, epoch: Epoch, alpha: float
) -> Mixed:
    """Scans with a box of the partner's, of 1 - share of the area (Yun et al. 2019, equations 1 and 2).

    `share` is what is left of the scan, counted in pixels.
    """
    key = key_of("cutmix", seed_key)
    partner, share = _draw(keys, key, epoch, alpha, x.device)
    ndim = x.ndim - 2
    where = torch.from_numpy(uniform(key, epoch, keys, 2, ndim)).to(x.device, torch.float32)
    side = (1 - share) ** (1 / ndim)
    inside = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    for axis, length in enumerate(x.shape[2:]):
        n = torch.round(side * length)
        low = torch.floor(where[:, axis] * (length - n + 1)).clamp(max=length)
        place = torch.arange(length, device=x.device)
        within = (place >= low[:, None]) & (place < (low + n)[:, None])
        inside &= within.view(len(x), *[length if i == axis + 1 else 1 for i in range(ndim + 1)])
    left = 1 - inside.flatten(1).float().mean(dim=1)
    return Mixed(torch.where(inside, x[partner], x), partner, left)


def _draw(
    keys: NDArray[np.uint64], key: int, epoch: Epoch, alpha: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Partners, each scan once, and shares from half to 1."""
    from scipy.stats import beta

    drawn = uniform(key, epoch, keys, 0, 2)
    # A cycle through the batch in a keyed order: nobody is their own partner where there are two.
    order = np.lexsort((keys, drawn[:, 0]))
    partner = np.empty(len(keys), dtype=np.int64)
    partner[order] = np.roll(order, -1)
    share = beta.ppf(drawn[:, 1], alpha, alpha)
    share = np.maximum(share, 1 - share).astype(np.float32)
    return torch.from_numpy(partner).to(device), torch.from_numpy(share).to(device)
