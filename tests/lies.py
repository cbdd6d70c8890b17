"""Headers of images that say another size, depth or number of samples than their data have; checksums are right."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

_PNG = {"width": (16, 4), "height": (20, 4), "bits": (24, 1), "colour": (25, 1), "interlaced": (28, 1)}  # fmt: skip
_BMP = {"begins": (10, "<I"), "width": (18, "<i"), "height": (22, "<i"), "bits": (28, "<H")}


def png_header(data: bytes, **fields: int) -> bytes:
    """With other fields in its IHDR."""
    made = bytearray(data)
    for name, value in fields.items():
        at, size = _PNG[name]
        made[at : at + size] = value.to_bytes(size, "big")
    made[29:33] = zlib.crc32(made[12:29]).to_bytes(4, "big")
    return bytes(made)


def jpeg_frame(data: bytes, **fields: int) -> bytes:
    """With another height or width in its SOF."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    made = bytearray(data)
    for name, value in fields.items():
        place = at + {"height": 5, "width": 7}[name]
        made[place : place + 2] = value.to_bytes(2, "big")
    return bytes(made)


def tiff_value(data: bytes, tag: int, value: int) -> bytes:
    """With another (first) value of a tag of the first directory of a little-endian TIFF; as it is without the tag."""
    at = int.from_bytes(data[4:8], "little")
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == tag:
            kind, count = struct.unpack_from("<HI", data, entry + 2)
            size = {1: 1, 3: 2, 4: 4}[kind]
            start = entry + 8
            if count * size > 4:
                start = int.from_bytes(data[start : start + 4], "little")
            put = min(value, 256**size - 1).to_bytes(size, "little")
            return data[:start] + put + data[start + size :]
    return data


def bmp_field(data: bytes, **fields: int) -> bytes:
    """With other fields in its headers (BITMAPINFOHEADER)."""
    made = bytearray(data)
    for name, value in fields.items():
        at, code = _BMP[name]
        struct.pack_into(code, made, at, value)
    return bytes(made)


def _png(rng: np.random.Generator, data: bytes) -> bytes:
    name = str(rng.choice(["width", "height", "bits", "colour"]))
    if name == "bits":
        return png_header(data, bits=int(rng.choice([n for n in (1, 2, 4, 8, 16) if n != data[24]])))  # fmt: skip
    if name == "colour":
        return png_header(data, colour=int(rng.choice([n for n in (0, 2, 4, 6) if n != data[25]])))
    at, size = _PNG[name]
    return png_header(data, **{name: _other(rng, int.from_bytes(data[at : at + size], "big"))})


def _jpeg(rng: np.random.Generator, data: bytes) -> bytes:
    """Whole MCUs of 16 pixels more, or less: others are not seen."""
    height, width = (24, 20)
    if rng.random() < 0.5:
        return jpeg_frame(data, height=int(rng.choice([1, 8, height + 17, height + 200])))
    return jpeg_frame(data, width=int(rng.choice([1, 4, width + 17, width + 200])))


def _tiff(rng: np.random.Generator, data: bytes) -> bytes:
    """Size, bits, packing, samples or rows of a strip; the packing never by its other number (deflate has two)."""
    choices = {
        256: _near(20), 257: _near(24), 258: [1, 4, 8, 16, 32], 259: [1, 5, 8, 32773], 277: [1, 2, 3, 4],
        278: [1, 5, 12],
    }  # fmt: skip
    while True:
        tag = int(rng.choice(list(choices)))
        made = tiff_value(data, tag, int(rng.choice(choices[tag])))
        if made != data:
            return made


def _bmp(rng: np.random.Generator, data: bytes) -> bytes:
    """Columns by more than the padding of a row."""
    name = str(rng.choice(["width", "height", "bits"]))
    if name == "height":
        return bmp_field(data, height=_other(rng, 24) * int(rng.choice([-1, 1])))
    if name == "bits":
        return bmp_field(data, bits=int(rng.choice([n for n in (1, 4, 8, 16, 24, 32) if n != data[28]])))  # fmt: skip
    return bmp_field(data, width=int(rng.choice([1, 8, 16, 25, 40, 3000])))


def _near(value: int) -> list[int]:
    return [1, value // 2, value - 1, value + 1, value * 2, 3000]


def _other(rng: np.random.Generator, value: int) -> int:
    """Another length than `value`, often near it."""
    return int(rng.choice(_near(value)))


# Kind of image -> what makes one of 24 x 20 lie.
LIES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "png": _png, "jpeg": _jpeg, "tiff": _tiff, "bmp": _bmp,
}  # fmt: skip


def lie(rng: np.random.Generator, reader: str, data: bytes) -> bytes:
    """`data` with one field of its header that its data cannot mean."""
    return LIES[reader](rng, data)
