"""Damage to files, a process that reads the damaged ones under limits, and what may not come out of it.

    python tests/fuzz_factory.py FOLDER READER:FIRST:LAST:SEED...

reads the cases and prints a line of JSON for each. Every case is made from (seed, reader, number) alone. `fuzz` runs
such processes: one that dies is a crash, or a hang where its alarm ended it; the next goes on behind that case.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import READERS, Files, read_files
from lies import LIES, lie

# Limits of one file: seconds of the processor, and MB of resident memory in all. What would take more than twice that
# ends in an error. On a busy machine a file may wait; one that only waits is a hang, too.
HANG_S, WAIT_S, MEMORY_MB = 10, 600, 2048
KINDS = ("flip", "cut", "lie", "huge", "splice", "bomb")
_SHARES = (0.2, 0.15, 0.25, 0.2, 0.17, 0.03)
# Of images so many have a header that means another size or depth than their data, apart from the kinds above.
_LIE_SHARE = 0.3
# Readers whose headers say how many bytes follow: fewer voxels than there are bytes is told in a note.
COUNTED = ("dicom", "nii", "nii.gz", "hdr", "nrrd", "mha", "npy")
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


# --- damage ---------------------------------------------------------------------------------------


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


# --- one case, and what may not come out ----------------------------------------------------------


def case(seed: int, reader: str, number: int, bases: list[Files]) -> tuple[str, int, Files]:
    """(kind of damage, which of `bases`, files) of a case."""
    rng = np.random.default_rng([seed, zlib.crc32(reader.encode()), number])
    base = int(rng.integers(len(bases)))
    kind, files = damage(rng, reader, bases[base])
    return kind, base, files


def judge(reader: str, kind: str, scans: list, originals: list, files: Files) -> str:
    """What is wrong with an answer; "" where nothing is."""
    there = sum(max(len(data), _unpacked(data)) for data in files.values())
    for scan in scans:
        if not scan.array.size or not all(np.isfinite(s) and s > 0 for s in scan.spacing_mm):
            return f"silent: shape {scan.array.shape}, spacing {scan.spacing_mm}"
    if kind == "deny" and scans:
        return f"silent: shape {scans[0].array.shape}, and its data are another"
    if kind in ("lie", "huge") and reader in LIES:
        said, held = (_extent(reader, all_[0]) for all_ in (scans, originals))
        if said != held:
            return f"silent: {said} by its header, {held} in its data"
    needed = sum(scan.array.size * min(scan.meta.bits, 8) // 8 for scan in scans)
    if reader in (*COUNTED, "npz", "bmp") and needed > 3 * there:  # a palette makes three of one
        return f"silent: {needed} bytes of voxels from {there}"
    if kind == "cut" and not _all_found(scans, originals):
        return "silent: cut short, and other voxels"
    voxels, before = (sum(scan.array.nbytes for scan in all_) for all_ in (scans, originals))
    told = any("than its header says" in note for scan in scans for note in scan.meta.notes)
    if reader in COUNTED and kind in ("lie", "huge") and voxels < before and not told:
        return f"silent: {voxels} of {before} bytes of voxels, and no note"
    return ""


def _extent(reader: str, scan: Any) -> int:
    """Pixels of an image; groups of them where others cannot be told apart: rows of BMP in words, JPEG in MCUs."""
    height, width = scan.array.shape[-2:]
    down, across = {"jpeg": (16, 16), "bmp": (1, 4)}.get(reader, (1, 1))
    return -(-height // down) * -(-width // across)


def _all_found(scans: list, originals: list) -> bool:
    """Whether every scan is one of the originals; a file or slice may be missing as a whole."""
    whole = [scan.physical() for scan in originals]
    return all(any(np.array_equal(scan.physical(), one) for one in whole) for scan in scans)


def _unpacked(data: bytes) -> int:
    if data[:2] != b"\x1f\x8b":
        return 0
    try:
        return len(zlib.decompressobj(31).decompress(data, 2**22))
    except zlib.error:
        return 0


def run_case(
    seed: int, reader: str, number: int, folder: Path, bases: list[Files], originals: list
) -> dict:
    """Facts of one case: what was done, and what came of it."""
    from fewscans.convert import Unreadable
    from fewscans.errors import UserError

    kind, base, files = case(seed, reader, number, bases)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    fact = {"reader": reader, "number": number, "kind": kind, "base": base}
    try:
        scans = read_files(reader, folder, sorted(files))
    except (Unreadable, UserError) as error:
        return {**fact, "outcome": "refused", "said": str(error)[:200]}
    except Exception as error:
        return {**fact, "outcome": f"error: {type(error).__name__}: {error}"[:200]}
    wrong = judge(reader, kind, scans, originals[base], files)
    return {**fact, "outcome": wrong or "answer"}


def main(folder: str, jobs: list[str]) -> None:
    """Read the cases of `jobs`; each has `HANG_S` seconds."""
    import logging

    import nibabel  # noqa: F401 - before the limit of memory, which is for files
    import pydicom  # noqa: F401
    import SimpleITK  # noqa: F401

    logging.disable(logging.CRITICAL)
    work = Path(folder, "case")
    work.mkdir(parents=True, exist_ok=True)
    prepared = []
    for job in jobs:
        reader, first, last, seed = job.split(":")
        bases = READERS[reader](Path(folder, "base"))
        originals = []
        for files in bases:
            for old in work.iterdir():
                old.unlink()
            for name, data in files.items():
                (work / name).write_bytes(data)
            originals.append(read_files(reader, work, sorted(files)))
        prepared.append((reader, range(int(first), int(last)), int(seed), bases, originals))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 2 * MEMORY_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for reader, numbers, seed, bases, originals in prepared:
        for number in numbers:
            print(json.dumps({"begins": f"{reader}:{number}"}), flush=True)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
            signal.setitimer(signal.ITIMER_PROF, HANG_S)
            signal.alarm(WAIT_S)
            fact = run_case(seed, reader, number, work, bases, originals)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            fact["peak_mb"] = _peak_mb()
            if fact["peak_mb"] > MEMORY_MB:
                fact["outcome"] = f"memory: {fact['peak_mb']} MB"
            print(json.dumps(fact), flush=True)


def _peak_mb() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


# --- many cases -----------------------------------------------------------------------------------


def fuzz(folder: Path, readers: Iterable[str], n: int, seed: int = 0) -> list[dict]:
    """Facts of `n` cases of each reader."""
    left = dict.fromkeys(readers, (0, n))
    facts: list[dict] = []
    while left:
        jobs = [f"{reader}:{first}:{last}:{seed}" for reader, (first, last) in left.items()]
        command = [sys.executable, __file__, str(folder), *jobs]
        done = subprocess.run(command, capture_output=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        facts += [line for line in lines if "outcome" in line]
        if done.returncode == 0:
            break
        if not lines:
            raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
        reader, _, number = lines[-1].get("begins", "").partition(":")
        if not number:
            raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
        what = (
            "hang"
            if -done.returncode in (signal.SIGALRM, signal.SIGPROF)
            else f"crash: exit {done.returncode}"
        )
        facts.append(
            {"reader": reader, "number": int(number), "kind": "", "outcome": what, "peak_mb": 0}
        )
        names = list(left)
        left = {name: left[name] for name in names[names.index(reader) :]}
        left[reader] = (int(number) + 1, n)
    return facts


def summary(facts: list[dict]) -> list[dict]:
    """A line for each reader: files, answers, refusals, and everything that should not be."""
    made = []
    for reader in dict.fromkeys(fact["reader"] for fact in facts):
        mine = [fact for fact in facts if fact["reader"] == reader]
        seen = Counter(fact["outcome"].partition(":")[0] for fact in mine)
        made.append({
            "reader": reader, "files": len(mine), "answers": seen["answer"], "refused": seen["refused"],
            "crashes": seen["crash"], "hangs": seen["hang"], "silent": seen["silent"],
            "memory": seen["memory"], "other_errors": seen["error"], "peak_mb": max(fact["peak_mb"] for fact in mine),
            "bad": [fact for fact in mine if fact["outcome"] not in ("answer", "refused")],
        })  # fmt: skip
    return made


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
