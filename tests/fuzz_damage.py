"""Damage to files: bits, cuts, headers that lie, huge sizes, splices, bombs; each from a generator alone."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable

import numpy as np
from fuzz_files import Files
from lies import LIES, lie

KINDS = ("flip", "cut", "lie", "huge", "splice", "bomb")
_SHARES = (0.2, 0.15, 0.25, 0.2, 0.17, 0.03)
# Of images so many have a header that means another size or depth than their data, apart from the kinds above.
_LIE_SHARE = 0.3
_EXTREME = (
    0,
    1,
    *(2**k - 1 for k in (7, 8, 15, 16, 31, 32, 64)),
    *(2**k for k in (7, 15, 31, 40, 63)),
)
_WORDS = (
    "0",
    "-1",
    "1",
    "65535",
    "2147483647",
    "99999999999",
    "1e30",
    "nan",
    "inf",
    "",
    "(",
    "9" * 400,
)
_ZEROS_MB = 1000


def damage(rng: np.random.Generator, reader: str, files: Files) -> tuple[str, Files]:
    """(kind, files) with one kind of damage done to one of them."""
    if reader in LIES and rng.random() < _LIE_SHARE:
        return "deny", {name: lie(rng, reader, data) for name, data in files.items()}
    kind = str(rng.choice(KINDS, p=_SHARES))
    name = str(rng.choice(sorted(files)))
    data = files[name]
    if kind == "bomb":
        made = _bomb(data)
        if made is None:
            kind = "huge"
        else:
            return kind, {**files, name: made}
    inside = rng.random() < 0.6
    made = _changed(rng, kind, data, inside)
    return kind, {**files, name: made}


def _changed(rng: np.random.Generator, kind: str, data: bytes, inside: bool) -> bytes:
    """`data` damaged, with `inside` within its packing, whose checksums are then right."""
    if inside and data[:2] == b"\x1f\x8b":
        return gzip.compress(_CHANGES[kind](rng, gzip.decompress(data)), 1, mtime=0)
    if inside and data[:2] == b"PK":
        return _rezip(rng, kind, data)
    if inside and data[:4] == b"\x89PNG" and rng.random() < 0.5:
        return _with_rows(rng, kind, data)
    made = _CHANGES[kind](rng, data)
    return _with_checksums(made) if inside and made[:4] == b"\x89PNG" else made


def _with_rows(rng: np.random.Generator, kind: str, data: bytes) -> bytes:
    """A PNG with its unpacked rows damaged."""
    at = data.index(b"IDAT")
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    packed = zlib.compress(_CHANGES[kind](rng, zlib.decompress(data[at + 4 : end])), 1)
    length = len(packed).to_bytes(4, "big")
    return _with_checksums(data[: at - 4] + length + b"IDAT" + packed + data[end:])


def _rezip(rng: np.random.Generator, kind: str, data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        hit = str(rng.choice(names))
        for name in names:
            member = old.read(name)
            new.writestr(name, _CHANGES[kind](rng, member) if name == hit else member)
    return made.getvalue()


def _flip(rng: np.random.Generator, data: bytes) -> bytes:
    made = bytearray(data)
    top = len(data) if rng.random() < 0.5 else min(len(data), 600)
    for _ in range(int(rng.integers(1, 9))):
        made[int(rng.integers(top))] ^= 1 << int(rng.integers(8))
    return bytes(made)


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _lie(rng: np.random.Generator, data: bytes) -> bytes:
    """A number of the header becomes an extreme one: in text by words, else in bytes."""
    numbers = [found.span() for found in re.finditer(rb"(?<=[ (,:=])-?\d+(\.\d+)?", data[:600])]
    if numbers and data[:4] in (b"NRRD", b"Obje", b"\x93NUM"):
        start, end = numbers[int(rng.integers(len(numbers)))]
        return data[:start] + str(rng.choice(_WORDS)).encode() + data[end:]
    made = bytearray(data)
    size = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice(np.array(_EXTREME, dtype=object))) % 256**size
    if size >= 4 and rng.random() < 0.2:
        real = float(rng.choice([np.nan, np.inf, -1e30, 1e30, -1, 0, 1e-30]))
        packed = struct.pack(str(rng.choice(["<f", ">f"])), real)
    else:
        packed = value.to_bytes(size, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]
    at = int(rng.integers(max(1, min(len(data), 700) - len(packed))))
    made[at : at + len(packed)] = packed
    return bytes(made)


def _huge(rng: np.random.Generator, data: bytes) -> bytes:
    """Sizes in the header become another, often a huge one: wherever 20, 24 (images), 7, 8, 9 (volumes) stand."""
    value = int(rng.choice([2, 3, 5, 6, 10, 25, 100, 9999, 30000, 65535, 100000]))
    for order in ("<", ">"):
        for code, top in (("H", 65535), ("I", 2**32 - 1)):
            found = [
                at for n in (20, 24, 7, 8, 9)
                for at in _places(data[:1200], struct.pack(order + code, n))
            ]  # fmt: skip
            if found and rng.random() < 0.4:
                at = int(rng.choice(found))
                put = struct.pack(order + code, min(value, top))
                return data[:at] + put + data[at + len(put) :]
    return _lie(rng, data)


def _places(data: bytes, what: bytes) -> Iterable[int]:
    return [found.start() for found in re.finditer(re.escape(what), data)]


def _splice(rng: np.random.Generator, data: bytes) -> bytes:
    """A part is doubled, lost, zero, or noise."""
    a, b = sorted(int(n) for n in rng.integers(0, len(data) + 1, 2))
    part = [data[a:b] * 2, b"", bytes(b - a), rng.bytes(b - a)][int(rng.integers(4))]
    return data[:a] + part + data[b:]


_CHANGES = {"flip": _flip, "cut": _cut, "lie": _lie, "huge": _huge, "splice": _splice}


def repeated(first: bytes, part: bytes, n: int, last: bytes = b"", wrapper: int = -15) -> bytes:
    """`first`, `n` times `part` and `last` as one packed stream, of zlib (15), gzip (31) or bare (-15).

    A part is packed once, so gigabytes are there at once.
    """
    machine = zlib.compressobj(9, zlib.DEFLATED, wrapper)
    head = machine.compress(first) + machine.flush(zlib.Z_FULL_FLUSH)
    block = machine.compress(part) + machine.flush(zlib.Z_FULL_FLUSH)
    return head + block * n + machine.compress(last) + machine.flush()


def _zeros(wrapper: int) -> bytes:
    """A packed stream of a gigabyte of zeros in a megabyte, with a header of zlib (15) or gzip (31), and no end."""
    machine = zlib.compressobj(1, zlib.DEFLATED, wrapper)
    head = machine.compress(b"") + machine.flush(zlib.Z_FULL_FLUSH)
    block = machine.compress(bytes(2**20)) + machine.flush(zlib.Z_FULL_FLUSH)
    return head + block * _ZEROS_MB


def _bomb(data: bytes) -> bytes | None:
    """The same file with a packed gigabyte behind what it holds, or in its place; None where nothing is packed."""
    if data[:2] == b"\x1f\x8b":
        return gzip.compress(gzip.decompress(data)[:400], mtime=0) + _zeros(31)
    if data[:4] == b"NRRD" and b"encoding: gzip" in data and b"data file" not in data:
        return data[: data.index(b"\n\n") + 2] + _zeros(31)
    if data[:4] == b"Obje" and b"LOCAL" in data and b"CompressedData = True" in data:
        return data[: data.index(b"LOCAL") + 6] + _zeros(15)
    if data[:4] == b"\x89PNG":
        at = data.index(b"IDAT")
        packed = _zeros(15)
        head = data[:16] + struct.pack(">II", 6000, 6000) + data[24 : at - 4]
        return _with_checksums(head + struct.pack(">I", len(packed)) + b"IDAT" + packed + bytes(4))
    if data[:2] == b"PK":
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                head, {"descr": "|u1", "fortran_order": False, "shape": (1, 4000, 4000, 4000)}
            )
            new.writestr("train_images.npy", head.getvalue() + bytes(2**26))
        return made.getvalue()
    return None


def _with_checksums(data: bytes) -> bytes:
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
