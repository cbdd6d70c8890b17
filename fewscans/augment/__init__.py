"""Views of scans: parameters are drawn by key, then applied to the whole batch on its device, in 2D and 3D alike.

Legend: B batch, C channels, S the spatial axes (H W or D H W). x: [B, C, *S] float32 in [0, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.augment import grid, intensity, local
from fewscans.augment.mix import Mixed, cutmix, mixup
from fewscans.augment.noise import normals
from fewscans.augment.parameters import Parameters, draw
from fewscans.augment.part import part
from fewscans.augment.policy import Kind, Modality, Policy, policy

__all__ = [
    "Kind", "Mixed", "Modality", "Parameters", "Policy", "apply", "cutmix", "draw", "mixup", "part", "policy", "render",
]  # fmt: skip


def render(x: Tensor, parameters: Parameters, *, size: int | None = None, fine: int = 1) -> Tensor:
    """The view of `x` [B, C, *S] that `parameters` describe, in [0, 1], without gradients.

    Of the shape of `x`, or with sides of `size`; `fine` as in `grid.sample`.
    """
    with torch.no_grad():
        p = parameters.to(x.device)
        out = grid.sample(x, p.affine, p.elastic, p.elastic_start, size, fine)
        intensity.change(out, p)
        if p.noise_sd is not None and p.noise_start is not None:
            column = (-1, *([1] * (x.ndim - 1)))
            out.add_(normals(p.noise_start, out[0].numel()).view_as(out) * p.noise_sd.view(column))
        if p.shuffle is not None and p.shuffle_start is not None:
            some = torch.nonzero(p.shuffle)[:, 0]
            if len(some):
                out[some] = local.shuffle(out[some], p.shuffle_start[some])
        if p.erase_low is not None and p.erase_high is not None:
            local.erase(out, p.erase_low, p.erase_high, p.erase_start)
        return out.clamp_(0, 1)


def apply(
    x: Tensor,
    keys: NDArray[np.uint64],
    *,
    seed_key: int,
    epoch: int | NDArray[np.integer],
    view: int,
    policy: Policy,
    size: int | None = None,
) -> Tensor:
    """One view of `x` [B, C, *S], with sides of `size` where it says so: `draw`, then `render`."""
    ndim = x.ndim - 2
    drawn = draw(keys, seed_key=seed_key, epoch=epoch, view=view, policy=policy, ndim=ndim)
    fine = 1 if size is None else grid.fineness(policy, x.shape[-1], size, ndim)
    return render(x, drawn, size=size, fine=fine)
