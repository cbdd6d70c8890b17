"""The scans of one step, as a method sees them.

Legend: B batch, C channels, S axes of space (H W or D H W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans import augment, keyed
from fewscans.known import Companion, Known


@dataclass(frozen=True)
class Scans:
    """All scans of a training: their keys [N], how rows of them are read, and what is known of them."""

    keys: NDArray[np.uint64]
    read: Callable[[NDArray[np.int64]], Tensor]
    known: Known
    side: int | None = None
    """Of the parts that a method is given; without it whole scans."""

    def batch(self, rows: NDArray[np.int64], epoch: int, seed_key: int) -> Batch:
        """The scans at `rows` [B], or a part of each, the same one for all its views."""
        x, keys = self.read(rows), self.keys[rows]
        if self.side is not None:
            x = augment.part(x, keys, seed_key=seed_key, epoch=epoch, side=self.side)
        return Batch(x, keys, epoch, seed_key, rows, self)


@dataclass(frozen=True)
class Batch:
    """Scans x [B, C, *S] of one step, and random numbers keyed by (seed, epoch, scan, view)."""

    x: Tensor
    keys: NDArray[np.uint64]
    epoch: int
    seed_key: int
    rows: NDArray[np.int64] | None = None
    scans: Scans | None = None

    def augmented(self, view: int, policy: augment.Policy, size: int | None = None) -> Tensor:
        """View `view` of the scans: [B, C, *S], or with sides of `size`."""
        return augment.apply(
            self.x, self.keys, seed_key=self.seed_key, epoch=self.epoch, view=view, policy=policy, size=size,
        )  # fmt: skip

    def random(self, n: int, view: int = 0) -> NDArray[np.float64]:
        """Numbers [B, n] in [0, 1) for the method's own use; not those of the augmentation."""
        return keyed.uniform(keyed.key_of("method", self.seed_key), self.epoch, self.keys, view, n)

    @property
    def scan(self) -> Tensor:
        """Numbers of the scans in the training: int64 [B]; without knowledge from 0."""
        rows = np.arange(len(self.x)) if self.rows is None else self.rows
        return torch.from_numpy(rows).to(self.x.device)

    @property
    def patient(self) -> Tensor:
        """Whose scans they are: int64 [B], equal numbers are one patient; without knowledge each its own."""
        if self.scans is None or self.rows is None:
            return torch.arange(len(self.x), device=self.x.device)
        return torch.from_numpy(self.scans.known.patient[self.rows]).to(self.x.device)

    @property
    def target(self) -> Tensor:
        """Classes: int64 [B], -1 where no label may be seen."""
        if self.scans is None or self.rows is None:
            return torch.full((len(self.x),), -1, device=self.x.device)
        return torch.from_numpy(self.scans.known.target[self.rows]).to(self.x.device)

    @property
    def values(self) -> list[tuple[Tensor, Tensor]]:
        """For each table the values [B, F], and bool [B] whether a scan has any; without knowledge no table."""
        if self.scans is None or self.rows is None:
            return []
        device = self.x.device
        return [
            (torch.from_numpy(table.x[self.rows]).to(device), torch.from_numpy(table.present[self.rows]).to(device))
            for table in self.scans.known.values
        ]  # fmt: skip

    def companions(self, kind: Companion, view: int = 0) -> Batch:
        """For each scan another one of its patient, drawn by key; a scan without others stands for itself.

        The companions' own keys draw their augmentation, so take another `view` of them.
        """
        if self.scans is None or self.rows is None:
            return self
        key = keyed.key_of("companion", self.seed_key)
        u = keyed.uniform(key, self.epoch, self.keys, view, 1)[:, 0]
        rows = self.scans.known.companions(self.rows, kind, u)
        return self.scans.batch(rows, self.epoch, self.seed_key)
