"""A process that reads damaged files (`fuzz_damage`) under limits, and what may not come out of it.

    python tests/fuzz_factory.py FOLDER READER:FIRST:LAST:SEED...

reads the cases and prints a line of JSON for each. Every case is made from (seed, reader, number) alone. `fuzz` runs
such processes: one that dies is a crash, or a hang where its alarm ended it; the next goes on behind that case.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_damage import blow_up, damage, is_packed
from fuzz_files import READERS, Files, read_files
from lies import LIES

# Limits of one file: seconds of the processor, and MB of resident memory in all. What would take more than twice that
# ends in an error. On a busy machine a file may wait; one that only waits is a hang, too.
HANG_S, WAIT_S, MEMORY_MB = 10, 600, 2048
# Readers whose headers say how many bytes follow: fewer voxels than there are bytes is told in a note.
COUNTED = ("dicom", "nii", "nii.gz", "hdr", "nrrd", "mha", "npy", "4d")

# --- one case, and what may not come out ----------------------------------------------------------


def case(seed: int, reader: str, number: int, bases: list[Files]) -> tuple[str, int, Files]:
    """(kind of damage, which of `bases`, files) of a case; the first are bombs, one of each base that is packed."""
    rng = np.random.default_rng([seed, zlib.crc32(reader.encode()), number])
    packed = [which for which, files in enumerate(bases) if is_packed(files)]
    if number < len(packed):
        return "bomb", packed[number], blow_up(rng, bases[packed[number]])
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
            "reader": reader, "files": len(mine),
            "bombs": sum(fact["kind"] == "bomb" for fact in mine), "answers": seen["answer"],
            "refused": seen["refused"], "crashes": seen["crash"], "hangs": seen["hang"], "silent": seen["silent"],
            "memory": seen["memory"], "other_errors": seen["error"], "peak_mb": max(fact["peak_mb"] for fact in mine),
            "bad": [fact for fact in mine if fact["outcome"] not in ("answer", "refused")],
        })  # fmt: skip
    return made


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
