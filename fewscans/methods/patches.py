"""Patches of a scan for tasks about where they lie: one in each cell of a grid, jittered, never touching another.

Without a gap the edges that neighbours share would give their places away, and so would the brightness that falls off
towards the border of a scan: each patch is standardised by itself (Doersch et al. 2015, section 4.1; Noroozi & Favaro
2016, section 3.3).

Legend: B batch, N cells, C channels, S axes of space, s axes of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewscans.errors import UserError
from fewscans.networks.resized import fitting_side
from fewscans.shape import Shape

# Side of a patch as a share of its cell's: 64 of 75 pixels in Noroozi & Favaro 2016, section 3.1.
_SHARE = 64 / 75
# Below, no network makes anything of a patch.
_LEAST_SIDE = 4
# Least deviation of intensities that a patch is divided by: where there is nothing, noise stays small.
_LEAST_SD = 0.02


@dataclass(frozen=True)
class Cells:
    """A grid of cells, and the side of the patch that is cut within each."""

    grid: int
    """Cells along an axis."""
    cell: int
    """Side of a cell in pixels."""
    side: int
    """Side of a patch in pixels, less than that of a cell."""
    ndim: int

    @property
    def n(self) -> int:
        """Cells of a scan; the last axis of space runs fastest."""
        return int(self.grid**self.ndim)

    def cut(self, x: Tensor, u: NDArray[np.float64]) -> Tensor:
        """Patches [B, N, C, *s] of `x` [B, C, *S], each at a keyed place `u` [B, N * ndim] of its cell, standardised.

        A patch begins in the first ``cell - side`` pixels of its cell: at least one pixel lies between neighbours.
        """
        jitter = np.floor(u.reshape(len(x), self.n, self.ndim) * (self.cell - self.side))
        cells = np.stack(np.unravel_index(np.arange(self.n), (self.grid,) * self.ndim), axis=1)
        corner = torch.from_numpy(jitter.astype(np.int64) + cells * self.cell).to(x.device)
        index = torch.zeros(len(x), self.n, *[1] * self.ndim, dtype=torch.int64, device=x.device)
        for axis, length in enumerate(x.shape[2:]):
            within = torch.arange(self.side, device=x.device)
            within = within.view([-1 if i == axis else 1 for i in range(self.ndim)])
            index = index * length + corner[..., axis].view(*index.shape[:2], *[1] * self.ndim)
            index = index + within
        flat = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
        made = x.flatten(2).gather(2, flat)
        made = made.view(*x.shape[:2], self.n, *[self.side] * self.ndim).transpose(1, 2)
        return standardised(made)

    def laid_out(self, patches: Tensor, size: int) -> Tensor:
        """[B, C, *S] of scans with each of `patches` [B, N, C, *s] at the corner of its cell, gray between them."""
        b, _, c = patches.shape[:3]
        made = patches.new_full((b, c, *[size] * self.ndim), 0.5)
        for i, cell in enumerate(np.ndindex(*[self.grid] * self.ndim)):
            box = [slice(k * self.cell, k * self.cell + self.side) for k in cell]
            made[(..., *box)] = patches[:, i]
        return made


def standardised(patches: Tensor) -> Tensor:
    """`patches` [B, N, C, *s] with mean 0.5 and standard deviation 1/4 each: in the range of scans."""
    dims = tuple(range(2, patches.ndim))
    mean = patches.mean(dim=dims, keepdim=True)
    sd = patches.var(dim=dims, keepdim=True, correction=0).sqrt()
    return (patches - mean) / (4 * (sd + _LEAST_SD)) + 0.5


def make_cells(encoder: nn.Module, shape: Shape, grid: int, method: str) -> Cells:
    """Cells of scans of `shape`, with patches of a side that the network takes.

    Raises
    ------
    UserError
        The scans have too few pixels for so many cells.
    """
    cell = shape.size // grid
    wanted = max(1, min(cell - 1, math.floor(_SHARE * cell)))
    fitting = {fitting_side(encoder, side) for side in range(1, wanted + 1)}
    sides = [side for side in fitting if _LEAST_SIDE <= side < cell]
    if not sides:
        least = grid * (max(_LEAST_SIDE, min(fitting)) + 1)
        raise UserError(
            f"{method}: {shape.size} pixels are too few for {grid} patches of this backbone along an axis. Use a "
            f"`size` of at least {least}, or a backbone that takes smaller patches."
        )
    return Cells(grid, cell, min(sides, key=lambda side: (abs(side - wanted), side)), shape.ndim)
