"""Percentiles, mean and deviation of an image as it is stored: with no copy of it, sorted or as float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# Values that are looked at in one go, which stay in the cache of a processor, and of how many the sample is.
_BLOCK, _SAMPLE = 2**16, 2**12
# Places of the sample on both sides of a percentile: rarely outside, and few values within.
_AROUND = 48


def blocks(image: npt.NDArray[np.generic]) -> Iterator[npt.NDArray[np.generic]]:
    """All values, some at a time."""
    flat = np.ascontiguousarray(image).reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def mean_and_deviation(image: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Of all values, by two passes over blocks as float64."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks(image)) / image.size
    squares = sum(
        float(np.square(block.astype(np.float64) - mean).sum()) for block in blocks(image)
    )
    return mean, float(np.sqrt(squares / image.size))


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
    below, n, parts = 0, 0, []
    for block in blocks(flat):
        within = block >= low
        below += block.size - int(np.count_nonzero(within))
        within &= block <= high
        if low == high:
            n += int(np.count_nonzero(within))
        else:
            parts.append(block[within])
            n += parts[-1].size
    if not below <= k <= upper < below + n:
        kept, below = flat, 0
    elif low == high:  # an empty ground is half of a picture
        return float(low), float(low)
    else:
        kept = np.concatenate(parts)
    ordered = np.partition(kept, sorted({k - below, upper - below}))
    return float(ordered[k - below]), float(ordered[upper - below])
