"""A second network that follows the trained one: an exponential moving average of its weights."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

# In how many steps the average forgets, at most as a share of the training.
_MEMORY_SHARE = 1 / 20


def follower(module: M) -> M:
    """A copy of `module` that gets no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


def base_momentum(asked: float | None, paper: float, n_steps: int) -> float:
    """Momentum of the first step: as asked for, else the paper's, less where a training has few steps.

    A momentum m remembers 1 / (1 - m) steps. The papers' trainings have 10^5 steps and remember some hundred; in one of
    two hundred steps such an average would never leave the first weights. So it remembers a twentieth of the steps at
    most, and two at least.
    """
    if asked is not None:
        return asked
    memory = max(2.0, min(1 / (1 - paper), n_steps * _MEMORY_SHARE))
    return 1 - 1 / memory


def rising(base: float, step: int, n_steps: int) -> float:
    """Momentum at `step` of `n_steps`: half a cosine from `base` to 1 (Grill et al. 2020, section 3.3)."""
    return 1 - (1 - base) * (math.cos(math.pi * step / n_steps) + 1) / 2


@torch.no_grad()
def follow(follower: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move `follower` to momentum * follower + (1 - momentum) * module; batch norms keep their own statistics."""
    torch._foreach_lerp_(
        [p.data for p in follower.parameters()],
        [p.data for p in module.parameters()],
        1 - momentum,
    )
