"""Standard normal numbers by key: stretches of a fixed bank.

Drawing new normals for each sample by key would cost more than the rest of the augmentation. A stretch from a keyed
place is white noise within a view; two views share a part of their noise only where their places fall together.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fewscans.keyed import key_of

# Places that a stretch can begin at.
_PLACES = 2**18


def normals(start: Tensor, n: int) -> Tensor:
    """[B, n] standard normals from the places `start` [B] in [0, 1), on its device."""
    bank = _bank(n, start.device)
    places = (start * bank.shape[0]).long().clamp_(max=bank.shape[0] - 1)
    return bank.index_select(0, places)


@lru_cache(maxsize=16)
def _bank(length: int, device: torch.device) -> Tensor:
    """Overlapping stretches [M, length]: a view, so M costs nothing."""
    generator = torch.Generator().manual_seed(key_of("noise bank") % 2**63)
    made = torch.randn(length + _PLACES, generator=generator)
    return made.to(device).unfold(0, length, 1)
