"""Percentiles, mean and deviation of an image as it is stored: with no copy of it, sorted or as float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Values that are looked at in one go, which stay in the cache of a processor.
_BLOCK = 2**16
# Of so many values the sample is: of small images, and at most.
_SAMPLE, _LARGE = 2**12, 2**14
# Standard deviations of a sample's percentile, on both sides of it, so that it is rarely outside.
_AROUND = 6
# Share of the values up to which all that are beyond a bound are taken out.
_FEW = 0.05


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
    sample = flat[:: flat.size // min(_LARGE, max(_SAMPLE, flat.size // 128)) | 1]
    # numpy sorts bytes ten times slower than what has two.
    sample = np.sort(sample.astype(np.int16) if sample.dtype == np.uint8 else sample)
    sample = sample.astype(flat.dtype, copy=False)
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
    around = 1 + int(_AROUND * math.sqrt(at * (1 - at / sample.size)))
    first, last = at - around, at + around
    low = sample[first] if first >= 0 else flat.min()
    high = sample[last] if last < sample.size else flat.max()
    if low == high:  # an empty ground is half of a picture
        below = sum(int(np.count_nonzero(block < low)) for block in blocks(flat))
        n = sum(int(np.count_nonzero(block == low)) for block in blocks(flat))
        if below <= k and upper < below + n:
            return float(low), float(low)
        kept, below = flat, 0
    else:
        kept, below = _between(flat, sample, low, high)
        if not below <= k <= upper < below + kept.size:
            kept, below = flat, 0
    ordered = np.partition(kept, sorted({k - below, upper - below}))
    return float(ordered[k - below]), float(ordered[upper - below])


def _between(
    flat: npt.NDArray[np.generic], sample: npt.NDArray[np.generic], low: Any, high: Any
) -> tuple[npt.NDArray[np.generic], int]:
    """(values from `low` to `high`, and beyond one of them where few are; how many of `flat` are below all of these).

    Near an end everything up to it costs one comparison, and nothing has to be counted.
    """
    few = int(_FEW * sample.size)
    if np.searchsorted(sample, high, "right") <= few:
        return np.concatenate([block[block <= high] for block in blocks(flat)]), 0
    if np.searchsorted(sample, low, "left") >= sample.size - few:
        kept = np.concatenate([block[block >= low] for block in blocks(flat)])
        return kept, flat.size - kept.size
    below, parts = 0, []
    for block in blocks(flat):
        within = block >= low
        below += block.size - int(np.count_nonzero(within))
        within &= block <= high
        parts.append(block[within])
    return np.concatenate(parts), below
