"""A BMP that holds as many rows as its header says, where it says that they begin."""

from __future__ import annotations

import re
import struct
from typing import IO, Any

from fewscans.convert import Unreadable

_FILE_HEADER = 14
_CORE, _INFO = 12, 40
_BITFIELDS = 3
# Bytes that writers put behind the rows so that the file ends at a word.
_MOST_BEYOND = 3
# What may be left of packed rows once all pixels are there: ends of a line, the end of the image.
_ENDS = re.compile(rb"\x00*(\x01\x00{0,3})?")


def check_bmp(handle: IO[bytes], image: Any) -> None:
    """Refuse rows that don't fill the file as `image`, opened and not yet loaded, believes; not packed ones.

    Raises
    ------
    Unreadable
        More or fewer bytes than rows x bytes of a row. What follows the end that the header says is left alone.
    """
    decoder, _, begins, arguments = image.tile[0]
    if decoder != "raw":
        return
    n_bytes = arguments[1] * image.height
    there, said, smallest = _ends_and_smallest(handle)
    if there - begins < n_bytes:
        found = max(0, there - begins)
        raise Unreadable(f"the file is cut short ({found} of {n_bytes} bytes), or its header is wrong")  # fmt: skip
    most = _MOST_BEYOND if begins == smallest else 0
    if not any(0 <= end - begins - n_bytes <= most for end in (there, said)):
        raise Unreadable(
            f"{there - begins} bytes of rows, and {n_bytes} by its header: one of them is wrong"
        )


def check_packed_bmp(handle: IO[bytes]) -> None:
    """Refuse packed rows that go on where Pillow, which has just read them, had all pixels: `handle` stands there."""
    if not _ENDS.fullmatch(handle.read()):
        raise Unreadable("its packed rows go on behind what its header says: one of them is wrong")


def _ends_and_smallest(handle: IO[bytes]) -> tuple[int, int, int]:
    """(where the file ends, where its header says so, where rows begin at the earliest)."""
    there = handle.seek(0, 2)
    handle.seek(0)
    head = handle.read(_FILE_HEADER + _INFO).ljust(_FILE_HEADER + _INFO, b"\0")
    said, size = (struct.unpack_from("<I", head, at)[0] for at in (2, 14))
    core = size == _CORE
    bits = struct.unpack_from("<H", head, 24 if core else 28)[0]
    packing, colours = (0, 0) if core else struct.unpack_from("<I12xI", head, 30)
    colours = colours or (1 << bits if bits <= 8 else 0)
    masks = 12 if size == _INFO and packing == _BITFIELDS else 0
    return there, said, _FILE_HEADER + size + masks + (3 if core else 4) * colours
