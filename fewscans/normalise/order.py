"""Percentiles of an image as it is stored: exact, with no copy of it, sorted or as float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Values that are looked at in one go, and of how many the sample is.
_BLOCK, _SAMPLE = 2**20, 2**12
# Places of the sample on both sides of a percentile: rarely outside, and few values within.
_AROUND = 48


def percentiles(image: npt.NDArray[np.generic], ranks: Sequence[float]) -> tuple[float, ...]:
    """What ``np.percentile`` has for float64, to the last digit, for real or whole numbers that are finite.

    A sorted sample says between which two values the wanted place lies; only what is between them is sorted. That the
    place is there is counted, else all is sorted.
    """
    flat = np.ascontiguousarray(image).reshape(-1)
    # An odd step: an even one would see some columns of a picture only.
    sample = np.sort(flat[:: flat.size // _SAMPLE | 1])
    found = []
    for rank in ranks:
        # As numpy's method "linear" has it, in its order of operations.
        place = rank / 100 * (flat.size - 1)
        k = int(place)
        low, high = _neighbours(flat, sample, k)
        share = place - k
        between = high - low
        found.append(low + between * share if share < 0.5 else high - between * (1 - share))
    return tuple(found)


def _neighbours(
    flat: npt.NDArray[np.generic], sample: npt.NDArray[np.generic], k: int
) -> tuple[float, float]:
    """Values number `k` and `k` + 1 of `flat` in order, from 0; the last twice."""
    upper = min(k + 1, flat.size - 1)
    at = k * sample.size // flat.size
    first, last = at - _AROUND, at + _AROUND
    low = sample[first] if first >= 0 else flat.min()
    high = sample[last] if last < sample.size else flat.max()
    blocks = [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]
    below = sum(int(np.count_nonzero(block < low)) for block in blocks)
    until = sum(int(np.count_nonzero(block <= high)) for block in blocks)
    if not below <= k <= upper < until:
        kept, below = flat, 0
    elif low == high:  # an empty ground is half of a picture
        return float(low), float(low)
    else:
        kept = np.concatenate([block[(block >= low) & (block <= high)] for block in blocks])
    ordered = np.partition(kept, sorted({k - below, upper - below}))
    return float(ordered[k - below]), float(ordered[upper - below])
