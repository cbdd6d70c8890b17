"""What slow transcriptions of losses are written with."""

from __future__ import annotations

import math

import torch


def random_rows(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(u, v) -> float:
    dot, uu, vv = (
        sum(a * b for a, b in zip(x, y, strict=True)) for x, y in ((u, v), (u, u), (v, v))
    )
    return dot / math.sqrt(uu) / math.sqrt(vv)
