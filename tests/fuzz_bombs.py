"""Bombs: files of a megabyte, or less, that unpack to gigabytes."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

_MB = bytes(2**20)
_ZEROS_MB = 1000
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_WIDTH, _LENGTH, _PACKING, _OFFSETS, _ROWS, _COUNTS = 256, 257, 259, 273, 278, 279
Bomb = Callable[[np.random.Generator, bytes], bytes]


def bomb(rng: np.random.Generator, data: bytes) -> bytes:
    """The same file with a packed gigabyte behind what it holds, within it, or in its place."""
    made = _way(data)
    assert made is not None
    return made(rng, data)


def is_bombable(data: bytes) -> bool:
    """Whether something in a file is packed, and well enough: 64 times, as PackBits, is no bomb."""
    return _way(data) is not None


def _way(data: bytes) -> Bomb | None:
    if data[:2] == b"\x1f\x8b":
        return _gzip
    if data[:4] == b"NRRD" and b"encoding: gzip" in data and b"data file" not in data:
        return lambda rng, data: data[: data.index(b"\n\n") + 2] + _zeros(31)
    if data[:4] == b"Obje" and b"LOCAL" in data and b"CompressedData = True" in data:
        return lambda rng, data: data[: data.index(b"LOCAL") + 6] + _zeros(15)
    if data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0:
        return lambda rng, data: _zeros(15)  # .zraw, by the checksum of its first bytes (RFC 1950)
    if data[:4] == b"\x89PNG":
        return _png
    if data[:2] == b"PK":
        return _npz
    if data[:4] == b"II*\0" and _tiff_fields(data)[_PACKING] in (5, 8):
        return _tiff
    if data[128:132] == b"DICM" and _DEFLATED in data[:400]:
        return _dicom
    return None


def repeated(first: bytes, part: bytes, n: int, last: bytes = b"", wrapper: int = -15) -> bytes:
    """`first`, `n` times `part` and `last` as one packed stream, of zlib (15), gzip (31) or bare (-15).

    A part is packed once, so gigabytes are there at once.
    """
    machine = zlib.compressobj(9, zlib.DEFLATED, wrapper)
    head = machine.compress(first) + machine.flush(zlib.Z_FULL_FLUSH)
    block = machine.compress(part) + machine.flush(zlib.Z_FULL_FLUSH)
    return head + block * n + machine.compress(last) + machine.flush()


@cache
def _zeros(wrapper: int) -> bytes:
    return repeated(b"", _MB, _ZEROS_MB, wrapper=wrapper)


def _gzip(rng: np.random.Generator, data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:400], mtime=0) + _zeros(31)


def _png(rng: np.random.Generator, data: bytes) -> bytes:
    at = data.index(b"IDAT")
    packed = _zeros(15)
    head = data[:16] + struct.pack(">II", 6000, 6000) + data[24 : at - 4]
    return with_checksums(head + struct.pack(">I", len(packed)) + b"IDAT" + packed + bytes(4))


def _npz(rng: np.random.Generator, data: bytes) -> bytes:
    made, head = io.BytesIO(), io.BytesIO()
    shape = (1, 4000, 4000, 4000) if rng.random() < 0.5 else (1, 9, 8, 7)
    says = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, says)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("train_images.npy", head.getvalue() + bytes(2**26))
    return made.getvalue()


def _dicom(rng: np.random.Generator, data: bytes) -> bytes:
    """Behind the pixels, as pixels of 6000 x 6000 and more, as ever more of them, or as an element before them."""
    start = 144 + int.from_bytes(data[140:144], "little")  # PS3.10, 7.1
    plain = zlib.decompress(data[start:], -15)
    pixels, rows = plain.index(b"\xe0\x7f\x10\x00O"), plain.index(b"\x28\x00\x10\x00US")
    many = bytearray(plain)
    for tag in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"):
        at = plain.index(tag) + 8
        many[at : at + 2] = struct.pack("<H", 6000)
    first = [
        plain,
        bytes(many[: pixels + 8]) + struct.pack("<I", 2**30),
        plain[:pixels] + b"\xe0\x7f\x10\x00OB\0\0" + b"\xff" * 4,
        plain[:rows] + b"\x27\x00\x12\x00OB\0\0" + struct.pack("<I", 2**30),
    ][int(rng.integers(4))]
    return data[:start] + repeated(first, _MB, 4 * _ZEROS_MB)


def _tiff(rng: np.random.Generator, data: bytes) -> bytes:
    """Its strip in place of the old one, of an image as small as it was, or of 6000 x 6000."""
    packed = _zeros(15) if _tiff_fields(data)[_PACKING] == 8 else _lzw_zeros()
    fields = {_OFFSETS: len(data), _COUNTS: len(packed)}
    if rng.random() < 0.5:
        fields |= {_WIDTH: 6000, _LENGTH: 6000, _ROWS: 6000}
    made = bytearray(data)
    for tag, at in _tiff_entries(data):
        if tag in fields:
            made[at : at + 12] = struct.pack("<HHII", tag, 4, 1, fields[tag])
    return bytes(made) + packed


def _tiff_entries(data: bytes) -> list[tuple[int, int]]:
    """(tag, place of its entry) of the first directory."""
    begins = int.from_bytes(data[4:8], "little")
    n = int.from_bytes(data[begins : begins + 2], "little")
    places = range(begins + 2, begins + 2 + 12 * n, 12)
    return [(int.from_bytes(data[at : at + 2], "little"), at) for at in places]


def _tiff_fields(data: bytes) -> dict[int, int]:
    """First value of each tag, as far as it is a number of two bytes."""
    return {
        tag: int.from_bytes(data[at + 8 : at + 10], "little") for tag, at in _tiff_entries(data)
    }


@cache
def _lzw_zeros() -> bytes:
    """A gigabyte of zeros by LZW (TIFF 6.0, section 13): each code is the one before and a zero more."""
    codes = [(0, 9), *((code, max(9, (code + 1).bit_length())) for code in range(258, 4094))]
    # Eight make whole bytes, the clear code at the end of each too. Clear codes before them are of 9 bits.
    bits = "".join(f"{code:0{width}b}" for code, width in [*codes, (256, 12)]) * 8
    clear = f"{256:09b}" * 8
    head, part = (int(text, 2).to_bytes(len(text) // 8, "big") for text in (clear, bits))
    n_bytes = 8 * len(codes) * (len(codes) + 1) // 2
    return head + part * -(-_ZEROS_MB * 2**20 // n_bytes) + b"\x80\x80"  # the last is an end


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right CRC, as far as their lengths make sense."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        length = int.from_bytes(made[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(made):
            break
        made[end : end + 4] = zlib.crc32(made[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(made)
