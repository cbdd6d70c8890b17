"""Pixels to write as scans of every kind, and ways to look at what `read` makes of a file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from fewscans.convert import Unreadable, read

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
SMALL = settings(max_examples=25, deadline=None)


def reason(path: Path) -> str:
    """What `read` says of a file that it does not read."""
    with pytest.raises(Unreadable) as caught:
        read(path)
    return f"{caught.value.status}: {caught.value.reason}"


def save(path: Path, array: np.ndarray, **options) -> Path:
    """Write an image by Pillow."""
    Image.fromarray(array).save(path, **options)
    return path


def raw_png(
    array: np.ndarray, colour: int, interlaced: bool = False, *more: tuple[bytes, bytes]
) -> bytes:
    """PNG of [H, W, samples] with 8 or 16 bits, `colour` as in section 11.2.1; `more` chunks stand before its rows."""
    height, width, _ = array.shape
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = [
        row.astype(array.dtype.newbyteorder(">")).tobytes()
        for top, left, down, across in (passes if interlaced else [(0, 0, 1, 1)])
        for row in array[top::down, left::across]
        if row.size
    ]
    # Filter 1, "Sub" (section 9.2), works by bytes of a pixel: one that is taken for another shows.
    step = array.shape[2] * array.itemsize
    packed = zlib.compress(b"".join(b"\1" + _less_left(row, step) for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour, 0, 0, interlaced)
    made = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), *more, (b"IDAT", packed), (b"IEND", b"")):
        made += struct.pack(">I", len(body)) + name + body
        made += zlib.crc32(name + body).to_bytes(4, "big")
    return made


def _less_left(row: bytes, step: int) -> bytes:
    values = np.frombuffer(row, np.uint8)
    return (values - np.concatenate([np.zeros(step, np.uint8), values[:-step]])).tobytes()
