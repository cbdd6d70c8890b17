"""Where the scans of a training lie, by what there is room for: on the device, in pinned memory, on disk.

Scans on disk are read through the page cache, so that a store larger than memory costs its reading and nothing else.
What is not on the device is fetched for the next step while the present one is computed.

Legend: N scans of a training, B of a batch.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Share of free memory that scans may take; the rest is for the network.
SHARE = 0.5
# Bytes that are read at once.
_CHUNK = 64 * 2**20

Array = NDArray[np.generic]


@dataclass(frozen=True)
class OnDisk:
    """Rows of memory-mapped stores, one store after the other."""

    parts: Sequence[tuple[Array, NDArray[np.int64]]]
    """(voxels of a store, its rows)."""

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Widest of the stores."""
        return np.result_type(*(voxels.dtype for voxels, _ in self.parts))

    @property
    def n_bytes(self) -> int:
        """Of all rows."""
        one = int(np.prod(self.parts[0][0].shape[1:], dtype=np.int64))
        return len(self) * one * self.dtype.itemsize

    def read(self, index: NDArray[np.int64]) -> Tensor:
        """Rows at `index` [B] in that order, read from disk in ascending order."""
        shape = self.parts[0][0].shape[1:]
        out = np.empty((len(index), *shape), dtype=self.dtype)
        step = max(1, _CHUNK // max(1, int(out[:1].nbytes)))
        first = 0
        for voxels, rows in self.parts:
            mine = np.flatnonzero((index >= first) & (index < first + len(rows)))
            mine = mine[np.argsort(rows[index[mine] - first], kind="stable")]
            for begin in range(0, len(mine), step):
                some = mine[begin : begin + step]
                out[some] = voxels[rows[index[some] - first]]
            first += len(rows)
        return torch.from_numpy(out)


class Residence:
    """Scans at their place, fetched by row.

    Attributes
    ----------
    kind
        ``device``, ``pinned``, or ``disk``.
    """

    def __init__(self, scans: OnDisk, device: torch.device) -> None:
        self.device = device
        self.kind = choose(scans.n_bytes, device)
        self._scans = scans
        self._ahead: tuple[NDArray[np.int64], Future[Tensor]] | None = None
        self._reader: ThreadPoolExecutor | None = None
        if self.kind == "disk":
            self._fetch: Callable[[NDArray[np.int64]], Tensor] = scans.read
            return
        held = scans.read(np.arange(len(scans)))
        if self.kind == "pinned":
            held = held.pin_memory()
            self._fetch = lambda index: _pinned(held, index)
        else:
            on_device = held.to(device)
            self._fetch = lambda index: on_device.index_select(
                0, torch.from_numpy(index).to(device)
            )

    def expect(self, index: NDArray[np.int64]) -> None:
        """Begin to fetch what `take` will be asked for next."""
        if self.kind == "device":
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="scans")
        self._ahead = index, self._reader.submit(self._fetch, index)

    def take(self, index: NDArray[np.int64]) -> Tensor:
        """Integers [B, C, *S] of the rows `index`, on the device."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and np.array_equal(ahead[0], index):
            return ahead[1].result().to(self.device, non_blocking=True)
        return self._fetch(index).to(self.device, non_blocking=True)

    def __str__(self) -> str:
        where = {
            "device": f"on the {'GPU' if self.device.type == 'cuda' else 'processor'}, in memory",
            "pinned": "in pinned memory, copied while the step before is computed",
            "disk": "on disk, read while the step before is computed",
        }[self.kind]
        return f"{len(self._scans)} scans, {self._scans.n_bytes / 2**20:.0f} MB, {where}"


def choose(n_bytes: int, device: torch.device) -> str:
    """The nearest place that `n_bytes` fit into beside a network."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if n_bytes <= SHARE * free:
            return "device"
    if n_bytes > SHARE * free_bytes():
        return "disk"
    return "pinned" if device.type == "cuda" else "device"


def free_bytes() -> float:
    """Memory that this process may still take: of the machine, its control group (a Slurm job's), its own limit."""
    facts = _numbers(Path("/proc/meminfo"), 1024)
    mine = _numbers(Path("/proc/self/status"), 1024)
    limits = [facts.get("MemAvailable", float("inf"))]
    group = Path("/sys/fs/cgroup")
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        read = [_number(group / name) for name in (most, used)]
        limits.append(read[0] - read[1] if read[1] < float("inf") else float("inf"))
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if own != resource.RLIM_INFINITY:
        limits.append(own - mine.get("VmData", 0.0))
    return max(0.0, min(limits))


def _numbers(path: Path, unit: int) -> dict[str, float]:
    """Lines ``Name: NUMBER kB`` of a file of the kernel, in bytes; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {
        words[0].rstrip(":"): float(words[1]) * unit
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _number(path: Path) -> float:
    """The number in a file of the kernel; infinity where it says ``max`` or is not there."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return float("inf")


def _pinned(held: Tensor, index: NDArray[np.int64]) -> Tensor:
    """Rows of pinned memory in pinned memory, so that the copy to the device waits for nobody."""
    out = torch.empty((len(index), *held.shape[1:]), dtype=held.dtype, pin_memory=True)
    return torch.index_select(held, 0, torch.from_numpy(index), out=out)
