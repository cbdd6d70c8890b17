"""An image network of timm on volumes, slice by slice: the mean of what it makes of slices along the first axis.

The object stays timm's, with timm's names of weights, so that these load into the plain image network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fewscans.config.backbones import slices_of


class SliceWise:
    """What is put before a class of timm: its `forward` then takes volumes."""

    fewscans_network: dict[str, Any]

    def forward(self, x: Tensor) -> Tensor:
        """[B, E] of `x` [B, C, D, H, W]."""
        flat: Any = super()
        return over_slices(flat.forward, x)


def slice_wise(model: nn.Module) -> nn.Module:
    """The same object, which from now on takes volumes."""
    flat: Any = type(model)
    model.__class__ = _class(flat)
    return model


@lru_cache
def _class(flat: type) -> type:
    return type(f"SliceWise{flat.__name__}", (SliceWise, flat), {})


def over_slices(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[B, E], the mean over slices [C, H, W] of `x` [B, C, D, H, W] of what `call` makes of them."""
    index = torch.as_tensor(places(x.shape[2]), device=x.device)
    taken = x.index_select(2, index).transpose(1, 2)  # [B, n, C, H, W]
    made = call(taken.flatten(0, 1))
    return made.unflatten(0, taken.shape[:2]).mean(dim=1)


def places(depth: int) -> list[int]:
    """Which of `depth` slices are looked at: all, or some at even distances, as far from both ends."""
    n = slices_of(depth)
    return [(2 * i + 1) * depth // (2 * n) for i in range(n)]
