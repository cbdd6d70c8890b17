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
from fuzz_bombs import bomb, is_bombable, with_checksums
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


def damage(rng: np.random.Generator, reader: str, files: Files) -> tuple[str, Files]:
    """(kind, files) with one kind of damage done to one of them."""
    if reader in LIES and rng.random() < _LIE_SHARE:
        return "deny", {name: lie(rng, reader, data) for name, data in files.items()}
    kind = str(rng.choice(KINDS, p=_SHARES))
    if kind == "bomb" and is_packed(files):
        return kind, blow_up(rng, files)
    if kind == "bomb":
        kind = "huge"
    name = str(rng.choice(sorted(files)))
    data = files[name]
    inside = rng.random() < 0.6
    made = _changed(rng, kind, data, inside)
    return kind, {**files, name: made}


def is_packed(files: Files) -> bool:
    """Whether one of the files can be made a bomb."""
    return any(is_bombable(data) for data in files.values())


def blow_up(rng: np.random.Generator, files: Files) -> Files:
    """`files`, one of them with a packed gigabyte."""
    name = str(rng.choice(sorted(name for name, data in files.items() if is_bombable(data))))
    return {**files, name: bomb(rng, files[name])}


def _changed(rng: np.random.Generator, kind: str, data: bytes, inside: bool) -> bytes:
    """`data` damaged, with `inside` within its packing, whose checksums are then right."""
    if inside and data[:2] == b"\x1f\x8b":
        return gzip.compress(_CHANGES[kind](rng, gzip.decompress(data)), 1, mtime=0)
    if inside and data[:2] == b"PK":
        return _rezip(rng, kind, data)
    if inside and data[:4] == b"\x89PNG" and rng.random() < 0.5:
        return _with_rows(rng, kind, data)
    made = _CHANGES[kind](rng, data)
    return with_checksums(made) if inside and made[:4] == b"\x89PNG" else made


def _with_rows(rng: np.random.Generator, kind: str, data: bytes) -> bytes:
    """A PNG with its unpacked rows damaged."""
    at = data.index(b"IDAT")
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    packed = zlib.compress(_CHANGES[kind](rng, zlib.decompress(data[at + 4 : end])), 1)
    length = len(packed).to_bytes(4, "big")
    return with_checksums(data[: at - 4] + length + b"IDAT" + packed + data[end:])


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
