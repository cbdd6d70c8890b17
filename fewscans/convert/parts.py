"""One volume after the other of a file that holds several (4D): no more is in memory than one, or a few small ones.

A file is checked to its end when it is opened, without keeping anything. Packed data are then unpacked once more, from
one volume to the next, so that 20 volumes take hardly more time than one; else a file is read where a volume lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fewscans.convert import Unreadable, check_size
from fewscans.convert.packed import Bytes, blocks_of, read_plain, unpack

# Each becomes a scan with a row of the index: more are a damaged header, or no medical image.
MOST_VOLUMES = 10_000
# Voxels of all volumes of a file: a few bytes of gzip may promise thousands of volumes of nothing.
MOST_IN_ALL = 2**31
_BLOCK = 2**20
# Bytes of volumes that are taken apart in one go, where they are woven into each other; one volume at least.
_TOGETHER = 2**26


@dataclass(frozen=True)
class Layout:
    """Where the volumes of a file lie.

    Attributes
    ----------
    file : Path
        That of the voxels.
    start : int
        Byte of the file at which its data begin, packed or not.
    before : int
        Bytes in front of the voxels, counted from there when unpacked.
    n_bytes : int
        Of one volume.
    count : int
        Number of volumes.
    packed : bool
        Whether it is gzip or zlib.
    woven : int
        Bytes of one number, where the numbers of all volumes at one place lie side by side; 0: volume by volume.
    """

    file: Path
    start: int
    before: int
    n_bytes: int
    count: int
    packed: bool
    woven: int = 0


def check_count(count: int, *lengths: int) -> None:
    """Refuse volumes of `lengths` that are too large, or too many, before any is unpacked."""
    check_size(*lengths)
    if count > MOST_VOLUMES:
        raise Unreadable(f"{count} volumes: more than the {MOST_VOLUMES} that are read", "set-aside")  # fmt: skip
    check_size(*lengths, count, most=MOST_IN_ALL)


def check_whole(layout: Layout) -> None:
    """Refuse a file whose voxels are not all there, or whose packed data are damaged."""
    _open(layout, _changed(layout))


def read_part(layout: Layout, number: int) -> tuple[Bytes, tuple[str, ...]]:
    """(bytes of volume `number`, from 0, notes); cheapest in ascending order.

    Raises
    ------
    Unreadable
        There is no such volume; the file, also behind this volume, is damaged or cut short.
    """
    if not 0 <= number < layout.count:
        raise Unreadable(f"no such volume; it holds {layout.count} volumes")
    opened = _open(layout, _changed(layout))
    return opened.read(number), opened.notes


def said_of(number: int, count: int, axis: str) -> tuple[str, ...]:
    """Note on which of several volumes this is, counted from 1 as in its path."""
    return (f"volume {number + 1} of {count}, along its {axis}",)


def _changed(layout: Layout) -> int:
    return layout.file.stat().st_mtime_ns


@lru_cache(maxsize=1)
def _open(layout: Layout, changed: int) -> _Opened:
    """The file, kept while the next volume comes from it too; `changed` makes a new file a new one."""
    return _Opened(layout)


class _Opened:
    """A file that is whole, and how far it is unpacked."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        needed = layout.before + layout.n_bytes * layout.count
        with open(layout.file, "rb") as handle:
            handle.seek(layout.start)
            check = unpack if layout.packed else read_plain
            self.notes = check(handle, needed, keep=False)[1]
        self._kept: dict[int, bytearray] = {}
        self._begin()

    def _begin(self) -> None:
        self._blocks: Iterator[Bytes] | None = None
        self._at, self._rest = 0, memoryview(b"")

    def read(self, number: int) -> Bytes:
        """Bytes of volume `number`."""
        layout = self.layout
        if layout.woven:
            return self._unwoven(number)
        begin = layout.before + number * layout.n_bytes
        if not layout.packed:
            with open(layout.file, "rb") as handle:
                handle.seek(layout.start + begin)
                return handle.read(layout.n_bytes)
        if begin < self._at:
            self._begin()
        self._take(begin - self._at, None)
        kept = bytearray()
        self._take(layout.n_bytes, kept)
        return kept

    def _take(self, n_bytes: int, into: bytearray | None) -> None:
        """Go on by `n_bytes` of what is unpacked, and keep them if there is something to keep them in."""
        self._blocks = self._blocks or _blocks(self.layout)
        while n_bytes:
            if not self._rest:
                block = next(self._blocks, None)
                if block is None:  # it was whole when it was opened
                    raise Unreadable("the file is cut short: it changed while it was read")
                self._rest = memoryview(block)
            part, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
            if into is not None:
                into += part
            n_bytes -= len(part)
            self._at += len(part)

    def _unwoven(self, number: int) -> Bytes:
        """Every `count`-th number, from the whole file; the next volumes with it, for each look takes as long."""
        if number not in self._kept:
            layout = self.layout
            last = min(layout.count, number + max(1, _TOGETHER // layout.n_bytes))
            self._kept = {one: bytearray() for one in range(number, last)}
            self._begin()
            self._take(layout.before, None)
            places = layout.n_bytes // layout.woven
            each = max(1, _BLOCK // (layout.count * layout.woven))
            for first in range(0, places, each):
                block = bytearray()
                self._take(min(each, places - first) * layout.count * layout.woven, block)
                numbers = np.frombuffer(block, np.uint8).reshape(-1, layout.count, layout.woven)
                for one, kept in self._kept.items():
                    kept += numbers[:, one].tobytes()
        return self._kept[number]


def _blocks(layout: Layout) -> Iterator[Bytes]:
    with open(layout.file, "rb") as handle:
        handle.seek(layout.start)
        if layout.packed:
            yield from blocks_of(handle)
            return
        while block := handle.read(_BLOCK):
            yield block
