"""How the audit's search for near duplicates grows with scans, and whether it misses any.

    python benchmarks/audit.py [--sizes 2000 6000 20000] [--search 60000 100000] [--out benchmarks/results/audit.json]

Made pictures of 64 pixels: one anatomy that all share, smooth fields of their own (correlation 0.8 in the mean, as of
chest films), one in twenty a near copy of another. Each size in a process of its own: the search, and every pair
correlated beside it, which tells how many pairs the search lost. Seconds are of the processor: set OMP_NUM_THREADS=1,
for threads that wait for each other count too. `--search` adds sizes without the comparison. Growth is the exponent
between neighbouring sizes, and that of n log n beside it. The audit as a whole is measured by `scans_growth.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import in_child, write_results
from scipy.fft import idctn

from fewscans.audit.duplicates import find_near
from fewscans.audit.thumbnails import thumbnail, unit_vectors

SIDE, THRESHOLD, BLOCK = 64, 0.98, 2048


def pictures(n: int) -> np.ndarray:
    """[n, 64, 64] uint8."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.mgrid[:SIDE, :SIDE])
    shared = 6 * rng.normal(size=(SIDE, SIDE)) / (1 + frequency) ** 2
    made = np.empty((n, SIDE, SIDE), np.uint8)
    copies = n // 20
    for start in range(0, n, BLOCK):
        own = rng.normal(size=(min(BLOCK, n - start), SIDE, SIDE)) / (1 + frequency) ** 1.5
        part = idctn(own + shared, axes=(1, 2), norm="ortho")
        made[start : start + BLOCK] = (128 + 400 * part).clip(0, 255)
    noisy = made[:copies].astype(np.float32) + rng.normal(0, 4, (copies, SIDE, SIDE))
    made[n - copies :] = noisy.clip(0, 255)
    return made


def search(n: int, compare: bool) -> str:
    """Seconds of the search among n thumbnails, the pairs it lists, and with `compare` those that all pairs have."""
    small = np.empty((n, 32, 32), np.float32)
    for i, one in enumerate(pictures(n)):
        small[i] = thumbnail(one.astype(np.float32))
    began = time.process_time()
    pairs = find_near(small, np.ones(n, bool), THRESHOLD)
    found: dict[str, Any] = {"search_s": round(time.process_time() - began, 2), "pairs": len(pairs)}
    if compare:
        began = time.process_time()
        every = exhaustive(unit_vectors(small))
        found["all_pairs_s"] = round(time.process_time() - began, 2)
        listed = set(zip(pairs["a"].tolist(), pairs["b"].tolist(), strict=True))
        found |= {"lost": len(every - listed), "not_among_all_pairs": len(listed - every)}
    return json.dumps(found)


def exhaustive(vectors: np.ndarray) -> set[tuple[int, int]]:
    """Pairs by correlating all; to 6 digits, as the search does."""
    found = []
    for start in range(0, len(vectors), BLOCK):
        values = vectors[start : start + BLOCK].astype(np.float64) @ vectors[start:].T
        a, b = np.nonzero(values.round(6) >= THRESHOLD)
        found += [
            (i + start, j + start) for i, j in zip(a.tolist(), b.tolist(), strict=True) if i < j
        ]
    return set(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sizes", nargs="+", type=int, default=[2000, 6000, 20000])
    made.add_argument("--search", nargs="*", type=int, default=[], help="for the search alone")
    made.add_argument("--out", type=Path, help="JSON file to write")
    arguments = made.parse_args(argv)
    cases: list[dict[str, Any]] = []
    for n in sorted([*arguments.sizes, *arguments.search]):
        compare = n in arguments.sizes
        told, peak = in_child(search, n, compare)
        case: dict[str, Any] = {"scans": n, **json.loads(told), "search_peak_mb": round(peak)}
        if cases:
            before, steps = cases[-1], math.log(n / cases[-1]["scans"])
            grown = math.log(max(case["search_s"], 0.01) / max(before["search_s"], 0.01))
            case["search_exponent"] = round(grown / steps, 2)
            logs = math.log(math.log(n) / math.log(before["scans"])) / steps
            case["n_log_n_exponent"] = round(1 + logs, 2)
        cases.append(case)
        print(json.dumps(case), flush=True)
    write_results(arguments.out, cases, threshold=THRESHOLD, side=SIDE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
