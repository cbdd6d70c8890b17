"""The chosen rows of a store, loaded once and kept on the device: a batch is a gather and a cast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.errors import UserError
from fewscans.keyed import scan_keys

if TYPE_CHECKING:
    from fewscans.store import Store

# Share of free device memory that scans may take; the rest is for the network.
_SHARE = 0.5


class Resident:
    """Scans of one store, as integers on the device (where they fit there, else in pinned host memory).

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
        voxels = _read_rows(store.voxels, rows)
        self.digests: list[str] = list(store.digests(self.scans))
        n = len(rows)
        column = (n, *([1] * (voxels.ndim - 1)))
        self._scale = torch.full(column, float(store.scale), device=self.device)
        self._intercept = torch.full(column, float(store.intercept), device=self.device)
        self._uniform = True
        self._keep(torch.from_numpy(voxels))

    def _keep(self, voxels: Tensor) -> None:
        """Put the integers where they stay."""
        self._home = self.device
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if voxels.numel() * voxels.element_size() > _SHARE * free:
                self._home = torch.device("cpu")
                voxels = voxels.pin_memory()
        self._voxels = voxels.to(self._home)

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
        shapes = {tuple(part._voxels.shape[1:]) for part in parts}
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
        kinds = {part._voxels.dtype for part in parts}
        kind = first._voxels.dtype if len(kinds) == 1 else torch.promote_types(*list(kinds)[:2])
        joined._keep(torch.cat([part._voxels.to(device="cpu", dtype=kind) for part in parts]))
        return joined

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, (D,) H, W) of a scan."""
        return tuple(self._voxels.shape[1:])

    def identity(self) -> list[tuple[str, str, float, float]]:
        """(scan, digest of its integers, scale, intercept) of each row: all that its numbers follow from."""
        scale, intercept = self._scale.flatten().tolist(), self._intercept.flatten().tolist()
        return list(zip(self.scans, self.digests, scale, intercept, strict=True))

    def batch(self, index: Tensor | NDArray[np.integer] | Sequence[int]) -> Tensor:
        """Scans at `index` [B] as float32 [B, C, (D,) H, W] in [0, 1], on the device."""
        where = torch.as_tensor(index, dtype=torch.int64)
        if not len(where):
            return torch.zeros((0, *self.shape), device=self.device)
        rows = self._voxels.index_select(0, where.to(self._home))
        x = rows.to(self.device, non_blocking=True).float()
        if self._uniform:
            return x.mul_(self._scale[0]).add_(self._intercept[0])
        where = where.to(self.device)
        return x.mul_(self._scale[where]).add_(self._intercept[where])


def _read_rows(voxels: np.ndarray, rows: NDArray[np.int64]) -> np.ndarray:
    """Rows of a memory map in the order asked for, read from disk in ascending order."""
    out = np.empty((len(rows), *voxels.shape[1:]), dtype=voxels.dtype)
    step = max(1, 64 * 2**20 // max(1, int(out[:1].nbytes)))
    order = np.argsort(rows, kind="stable")
    for first in range(0, len(rows), step):
        some = order[first : first + step]
        out[some] = voxels[rows[some]]
    return out
