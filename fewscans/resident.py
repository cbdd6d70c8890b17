"""The chosen rows of a store as a training reads them: a batch is a gather and a cast."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.errors import UserError
from fewscans.keyed import scan_keys
from fewscans.residence import OnDisk, Residence

if TYPE_CHECKING:
    from fewscans.store import Store

log = logging.getLogger("fewscans")


class Resident:
    """Scans of one store, kept as integers where there is room for them (`fewscans.residence`).

    Attributes
    ----------
    scans
        Scan keys as text, in the order of the rows.
    keys
        The same as uint64 [N], for keyed random numbers.
    digests
        Digest of each scan's pixels in the store, in the same order.
    """

    def __init__(
        self, store: Store, scans: Sequence[str], device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.scans = [str(scan) for scan in scans]
        self.keys = scan_keys(self.scans)
        rows = np.array([store.row_of(scan) for scan in self.scans], dtype=np.int64)
        self._on_disk = OnDisk([(store.voxels, rows)])
        self.digests: list[str] = list(store.digests(self.scans))
        n = len(rows)
        column = (n, *([1] * (store.voxels.ndim - 1)))
        self._scale = torch.full(column, float(store.scale), device=self.device)
        self._intercept = torch.full(column, float(store.intercept), device=self.device)
        self._uniform = True

    @cached_property
    def residence(self) -> Residence:
        """Where the scans are; they are read when a first batch is asked for."""
        made = Residence(self._on_disk, self.device)
        log.info("%s", made)
        return made

    @classmethod
    def join(cls, parts: Sequence[Resident]) -> Resident:
        """Rows of several stores of one recipe, one after the other (a data set and its pools).

        Raises
        ------
        UserError
            The stores differ in shape: they come from different recipes.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise UserError(
                f"stores of different shapes cannot be joined: {sorted(shapes)}. Use one recipe for all."
            )
        joined = cls.__new__(cls)
        joined.device = first.device
        joined.scans = [scan for part in parts for scan in part.scans]
        joined.digests = [digest for part in parts for digest in part.digests]
        joined.keys = np.concatenate([part.keys for part in parts])
        joined._scale = torch.cat([part._scale for part in parts])
        joined._intercept = torch.cat([part._intercept for part in parts])
        joined._uniform = (
            len({(float(p._scale[0]), float(p._intercept[0])) for p in parts if len(p)}) <= 1
        )
        joined._on_disk = OnDisk([one for part in parts for one in part._on_disk.parts])
        return joined

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, (D,) H, W) of a scan."""
        return tuple(self._on_disk.parts[0][0].shape[1:])

    def identity(self) -> list[tuple[str, str, float, float]]:
        """(scan, digest of its integers, scale, intercept) of each row: all that its numbers follow from."""
        scale, intercept = self._scale.flatten().tolist(), self._intercept.flatten().tolist()
        return list(zip(self.scans, self.digests, scale, intercept, strict=True))

    def expect(self, index: NDArray[np.int64]) -> None:
        """Begin to fetch the scans that the next call of `batch` asks for, where they are not on the device."""
        self.residence.expect(index)

    def batch(self, index: Tensor | NDArray[np.integer] | Sequence[int]) -> Tensor:
        """Scans at `index` [B] as float32 [B, C, (D,) H, W] in [0, 1], on the device."""
        where = np.asarray(index, dtype=np.int64)
        if not len(where):
            return torch.zeros((0, *self.shape), device=self.device)
        x = self.residence.take(where).float()
        if self._uniform:
            return x.mul_(self._scale[0]).add_(self._intercept[0])
        rows = torch.from_numpy(where).to(self.device)
        return x.mul_(self._scale[rows]).add_(self._intercept[rows])
