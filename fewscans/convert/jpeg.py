"""A JPEG whose coded data last for the rows and columns of its header, no less, no more (ISO 10918-1, annexes A, B, F).

JPEG has no checksums, and libjpeg fills what is missing with gray and leaves alone what is left over, with warnings
that Pillow drops. So the image is decoded at an eighth with rows added to its header: behind the last block there must
be the gray of nothing. An eighth takes no inverse transform, but the codes must be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fewscans.convert import Unreadable

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# In coded data 0xFF 0x00 is a byte, and 0xD0 to 0xD7 restart the decoder (B.1.1.5).
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_START_OF_FRAME, _END, _START_OF_SCAN, _INTERVAL = (0xC0, 0xC1, 0xC2), 0xD9, 0xDA, 0xDD
_ALONE = (0x01, *range(0xD0, 0xD9))
# Rows and columns that libjpeg takes; gray of blocks that are not there, and of those that Adobe turns over.
_MOST, _GRAY = 65500, (127, 128)
# No such bytes follow padding: data that are short read them.
_NOISE = bytes(range(1, 200))


@dataclass(frozen=True)
class _Frame:
    """Where the parts of a JPEG are: height in its header, coded data from `scans`; pixels of an MCU; restarts."""

    height_at: int
    size: tuple[int, int]
    mcu: tuple[int, int]
    scans: tuple[tuple[int, int], ...]
    interval: int
    end: int


def check_jpeg(handle: IO[bytes]) -> None:
    """Refuse coded data that are shorter or longer than rows and columns need; arithmetic codes are not looked at.

    Raises
    ------
    Unreadable
        Also where it has no end (EOI).
    """
    handle.seek(0)
    data = handle.read()
    frame = _parse(data)
    if frame is None:
        return
    height, rows = frame.size[0], frame.mcu[0]
    coded = -(-height // rows) * rows
    if coded + rows > _MOST:
        return
    found, step = _eighth(_with_scans(data, frame, _without_padding, coded + rows))
    if not np.isin(found[coded // step :], _GRAY).all():
        raise Unreadable("its coded data go on behind what its header says: one of them is wrong")
    last = found[(coded - rows) // step : coded // step][:, -1]
    if _too_few_restarts(data, frame) or (np.isin(last, _GRAY).all() and _is_short(data, frame)):
        raise Unreadable("its coded data end before what its header says: one of them is wrong")


def _parse(data: bytes) -> _Frame | None:
    """Parts of a JPEG; None where its coding is none of Huffman's."""
    at, interval, frame = 2, 0, None
    scans: list[tuple[int, int]] = []
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise Unreadable("the file is cut short: it has no end")
        code, at = found[1][0], found.end()
        if code == _END:
            break
        if code in _ALONE:
            continue
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        if code in _START_OF_FRAME:
            n = body[5]
            across, down = zip(*((f >> 4, f & 15) for f in body[7 : 6 + 3 * n : 3]), strict=True)
            # A single component is not interleaved: its MCU is a block (A.2.2).
            mcu = (8, 8) if n == 1 else (8 * max(down), 8 * max(across))
            size = (int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"))
            frame = (at + 3, size, mcu)
        if code == _INTERVAL:
            interval = int.from_bytes(body[:2], "big")
        at += 2 + len(body)
        if code == _START_OF_SCAN:
            after = _AFTER_SCAN.search(data, at)
            if after is None:
                raise Unreadable("the file is cut short: it has no end")
            scans.append((at, after.start()))
            at = after.start()
    if frame is None or not scans:
        return None
    return _Frame(*frame, tuple(scans), interval, at)


def _without_padding(scan: bytes) -> bytes:
    """Coded data without their last byte: bits of padding would be read as a block, or as blocks of one bit."""
    return scan.rstrip(b"\0")[:-1]


def _with_scans(data: bytes, frame: _Frame, change: Callable[[bytes], bytes], height: int) -> bytes:
    """The JPEG with each scan's coded data changed, and another height in its header."""
    made, at = [], 0
    for begins, end in frame.scans:
        made += [data[at:begins], change(data[begins:end])]
        at = end
    whole = bytearray(b"".join([*made, data[at : frame.end]]))
    whole[frame.height_at : frame.height_at + 2] = height.to_bytes(2, "big")
    return bytes(whole)


def _eighth(data: bytes) -> tuple[npt.NDArray[np.uint8], int]:
    """(the image [H, W] or [H, W, C] at an eighth, pixels that became one along each axis)."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        step = next(s for s in (8, 4, 2, 1) if s <= min(image.size))
        image.draft("L" if image.mode in ("L", "RGB") else image.mode, (1, 1))
        return np.asarray(image), step


def _is_short(data: bytes, frame: _Frame) -> bool:
    """Whether bytes behind the coded data would be read."""
    height = frame.size[0]
    plain, _ = _eighth(_with_scans(data, frame, bytes, height))
    other, _ = _eighth(_with_scans(data, frame, lambda scan: scan + _NOISE, height))
    return not np.array_equal(plain, other)


def _too_few_restarts(data: bytes, frame: _Frame) -> bool:
    if not frame.interval or len(frame.scans) > 1:
        return False
    begins, end = frame.scans[0]
    n_mcu = -(-frame.size[0] // frame.mcu[0]) * -(-frame.size[1] // frame.mcu[1])
    return len(_RESTART.findall(data[begins:end])) < -(-n_mcu // frame.interval) - 1
