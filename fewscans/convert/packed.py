"""Bytes of voxels, packed or not: no more is unpacked than a header needs, and what is there must be whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# The API of zlib, two or three times as fast.
from isal import isal_zlib

from fewscans.convert import Unreadable

Bytes = bytes | bytearray
# What it raises; its stubs call this an instance.
UNPACKING: Any = isal_zlib.error

_BLOCK = 2**20
GZIP = b"\x1f\x8b"
# Packed data that go on by more than this behind what the header needs are no slip of a writer.
_MOST_BEYOND = 2**24


def unpack(handle: IO[bytes], n_bytes: int, keep: bool = True) -> tuple[Bytes, tuple[str, ...]]:
    """(the next `n_bytes`, notes) of a gzip or zlib stream; checked to its end. Without `keep` only counted.

    Raises
    ------
    Unreadable
        It breaks off, its checksum is wrong, it is shorter, or far longer.
    """
    kept = bytearray()  # grows in place: parts that are joined at the end would be there twice
    found = 0
    for part in blocks_of(handle):
        if keep and found < n_bytes:
            kept += part[: n_bytes - found]
        found += len(part)
        if found > n_bytes + _MOST_BEYOND:
            raise Unreadable("its packed data go on far beyond what the header says: one of them is wrong")  # fmt: skip
    if found < n_bytes:
        raise Unreadable(f"the file is cut short ({found} of {n_bytes} bytes)")
    return kept, beyond(found - n_bytes)


def blocks_of(handle: IO[bytes]) -> Iterator[bytes]:
    """Unpacked blocks of all streams in a file, one behind the other; what follows the last is left alone."""
    machine = isal_zlib.decompressobj(47)  # gzip and zlib, by their first bytes
    data = b""
    while True:
        data = data or handle.read(_BLOCK)
        if not data:
            raise Unreadable("the file is cut short: its packed data break off")
        try:
            yield machine.decompress(data, _BLOCK)
        except UNPACKING as error:
            raise Unreadable(
                f"damaged: its packed data cannot be unpacked ({said(error)})"
            ) from None
        data = machine.unconsumed_tail
        if machine.eof:
            data = machine.unused_data or handle.read(_BLOCK)
            if not data.startswith(GZIP):
                return
            machine = isal_zlib.decompressobj(47)


def read_plain(handle: IO[bytes], n_bytes: int, keep: bool = True) -> tuple[bytes, tuple[str, ...]]:
    """(the next `n_bytes`, notes) of a file that is not packed. Without `keep` only counted.

    Raises
    ------
    Unreadable
        It has fewer.
    """
    start = handle.tell()
    there = handle.seek(0, 2) - start
    if there < n_bytes:
        raise Unreadable(f"the file is cut short ({max(0, there)} of {n_bytes} bytes)")
    handle.seek(start)
    return handle.read(n_bytes) if keep else b"", beyond(there - n_bytes)


def read_either(path: Path, n_bytes: int) -> tuple[Bytes, tuple[str, ...]]:
    """(the first `n_bytes`, notes) of a file that is gzip or not, by its content."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == GZIP
        handle.seek(0)
        return unpack(handle, n_bytes) if zipped else read_plain(handle, n_bytes)


def said(error: Exception) -> str:
    """What it says of packed data, in lower case and without its number."""
    return re.sub(r"^Error -?\d+ ", "", str(error)).lower()


def beyond(n: int) -> tuple[str, ...]:
    """A note where a file holds `n` bytes more than its header needs."""
    return (f"{n} bytes more than its header says were left alone",) if n > 0 else ()
