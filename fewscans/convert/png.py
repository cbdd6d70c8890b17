"""A PNG whose rows and checksums are what its header and chunks say (PNG, third edition, sections 5, 8 and 11).

Pillow stops reading once it has as many rows as the header says, before the checksums of what it read: a header with
fewer rows than there are, or fewer bits, was a wrong picture in silence.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

from isal import isal_zlib

from fewscans.convert import Unreadable
from fewscans.convert.packed import UNPACKING, said

_SIGNATURE = 8
_BLOCK = 2**20
# Samples of a pixel, by colour type (section 11.2.1).
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, steps between columns and rows of the passes of an interlaced image (section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # fmt: skip
_WHOLE = ((0, 0, 1, 1),)


def unpacked_png(handle: IO[bytes]) -> io.BytesIO:
    """The same PNG with its rows not packed, so that decoding it unpacks nothing twice; what follows IEND is left out.

    Raises
    ------
    Unreadable
        A chunk whose checksum is wrong; no end; rows that are more or fewer bytes than the header says, or whose own
        checksum is wrong.
    """
    handle.seek(0)
    made = io.BytesIO()
    made.write(handle.read(_SIGNATURE))
    machine, packer, n_bytes, found = isal_zlib.decompressobj(), zlib.compressobj(0), 0, 0
    start = 0
    for name, body in _chunks(handle):
        if name == b"IHDR":
            n_bytes = _bytes_of_rows(body)
        if name != b"IDAT":
            if start and not machine.eof:
                raise Unreadable("the file is cut short: its packed rows break off")
            if start:
                _end_chunk(made, start, packer.flush())
                start = 0
            _write_chunk(made, name, body)
            continue
        if not start and found:
            raise Unreadable("damaged: its rows are in two places")
        if not start:
            start = made.tell()
            made.write(b"\0\0\0\0IDAT")
        for rows in _inflate(machine, body):
            found += len(rows)
            if found > n_bytes:
                raise Unreadable(
                    f"its rows are more than the {n_bytes} bytes by its header: one of them is wrong"
                )
            made.write(packer.compress(rows))
    if found < n_bytes or not n_bytes:
        raise Unreadable(f"its rows are {found} bytes, and {n_bytes} by its header: one of them is wrong")  # fmt: skip
    made.seek(0)
    return made


def _chunks(handle: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(name, body) of each chunk to IEND."""
    name = b""
    while name != b"IEND":
        head = handle.read(8)
        if len(head) < 8:
            raise Unreadable("the file is cut short: it has no end")
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        body = handle.read(length)
        check = handle.read(4)
        if len(body) < length or len(check) < 4:
            raise Unreadable(f"the file is cut short, or the length of a part ({name!r}) is wrong")
        if isal_zlib.crc32(body, isal_zlib.crc32(name)) != int.from_bytes(check, "big"):
            raise Unreadable(f"damaged: the checksum of a part ({name!r}) is wrong")
        yield name, body


def _bytes_of_rows(header: bytes) -> int:
    """Bytes of all rows with their filter types, by an IHDR."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _SAMPLES:
        raise Unreadable(f"damaged: its header says colours of kind {colour}")
    total = 0
    for left, top, right, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits * _SAMPLES[colour] + 7) // 8)
    return total


def _inflate(machine: Any, packed: bytes) -> Iterator[bytes]:
    while packed and not machine.eof:
        try:
            yield machine.decompress(packed, _BLOCK)
        except UNPACKING as error:
            raise Unreadable(f"damaged: its rows cannot be unpacked ({said(error)})") from None
        packed = machine.unconsumed_tail


def _write_chunk(made: io.BytesIO, name: bytes, body: bytes) -> None:
    made.write(struct.pack(">I", len(body)) + name + body)
    made.write(isal_zlib.crc32(body, isal_zlib.crc32(name)).to_bytes(4, "big"))


def _end_chunk(made: io.BytesIO, start: int, rest: bytes) -> None:
    """Put length and checksum of the chunk that begins at `start` in place."""
    made.write(rest)
    with made.getbuffer() as whole:
        whole[start : start + 4] = (made.tell() - start - 8).to_bytes(4, "big")
        check = isal_zlib.crc32(whole[start + 4 :])
    made.write(check.to_bytes(4, "big"))
