"""A network on scans larger than it is given at once: the mean of what it makes of overlapping parts.

A linear head's logits are then the means of its logits too. The object stays what it is, with its names of weights.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

from torch import Tensor, nn

from fewscans.shape import starts


class InParts:
    """What is put before a class: its `forward` then takes scans of any side from `fewscans_crop` on."""

    fewscans_crop: int

    def forward(self, x: Tensor) -> Tensor:
        """[B, E] of `x` [B, C, *S]."""
        whole: Any = super()
        side, size = self.fewscans_crop, x.shape[-1]
        if size <= side:
            return whole.forward(x)  # type: ignore[no-any-return]
        places = list(product(starts(size, side), repeat=x.ndim - 2))
        total: Any = 0
        for lows in places:
            total = total + whole.forward(x[(..., *(slice(low, low + side) for low in lows))])
        return total / len(places)  # type: ignore[no-any-return]


def in_parts(model: nn.Module, side: int | None) -> nn.Module:
    """The same object, which from now on looks at parts of `side`; as it is where there is none."""
    if side is not None:
        found: Any = type(model)
        model.fewscans_crop = side  # type: ignore[assignment]
        model.__class__ = _class(found)
    return model


def part_side(model: nn.Module) -> int | None:
    """Side of the parts that a network looks at; None where it looks at whole scans."""
    return model.fewscans_crop if isinstance(model, InParts) else None


@lru_cache
def _class(whole: type) -> type:
    return type(f"{whole.__name__}InParts", (InParts, whole), {})
