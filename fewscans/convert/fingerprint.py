"""What tells whether two scans have the same pixels: a digest of physical values, whichever way they were stored."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fewscans.convert import to_physical

# Values that are looked at in one go.
_BLOCK = 2**20
# Whole numbers are taken as the first of these that holds all of them, other values as float32: fewer bytes to go over.
_WHOLE, _ANY = ("<u1", "<i2", "<u2"), "<f4"


def pixel_digest(physical: npt.NDArray[np.float32]) -> str:
    """SHA-256 over shape and physical values: equal for the same pixels, however they were stored.

    A gray image saved as RGB, a DICOM file with another slope or MONOCHROME1, a PNG and its BMP all
    agree.
    """
    return digest_and_mean(physical, 1.0, 0.0)[0]


def digest_and_mean(
    array: npt.NDArray[np.generic], scale: float, intercept: float
) -> tuple[str, float]:
    """(`pixel_digest`, mean) of ``array * scale + intercept``; a block at a time, for a volume may be large."""
    flat = np.ascontiguousarray(array).reshape(-1)
    blocks = [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]
    exact = (
        array.dtype.kind in "iu"
        and array.dtype.itemsize <= 2
        and scale == 1.0
        and intercept.is_integer()
    )
    edges = _edges(blocks, scale, intercept, exact)
    kind = next((one for one in _WHOLE if _holds(one, edges)), _ANY)
    exact = exact and kind != _ANY
    shift = np.array(int(intercept) if exact else 0).astype(kind)
    made = hashlib.sha256(f"{kind} {array.shape}".encode())
    total = flat.size * intercept if exact else 0.0
    for block in blocks:
        if exact:
            total += int(block.sum(dtype=np.int64))
            values = block.astype(kind, copy=False)
            # Wraps round on the way to numbers that fit.
            values = values + shift if shift else values
        else:
            physical = to_physical(block, scale, intercept)
            total += float(physical.sum(dtype=np.float64))
            # + 0 turns -0.0 into 0.0, which is the same value but other bytes.
            values = (physical + np.float32(0)).astype(kind, copy=False)
        made.update(values.data)
    return made.hexdigest(), total / flat.size


def _edges(
    blocks: list[npt.NDArray[np.generic]], scale: float, intercept: float, exact: bool
) -> tuple[float, float] | None:
    """Smallest and largest physical value; None where one of them is no whole number."""
    if exact:
        low, high = min(int(b.min()) for b in blocks), max(int(b.max()) for b in blocks)
        return low + intercept, high + intercept
    lows, highs = [], []
    for block in blocks:
        physical = to_physical(block, scale, intercept)
        if not np.array_equal(physical, np.trunc(physical)):
            return None
        lows.append(float(physical.min()))
        highs.append(float(physical.max()))
    return min(lows), max(highs)


def _holds(kind: str, edges: tuple[float, float] | None) -> bool:
    limits = np.iinfo(kind)
    return edges is not None and limits.min <= edges[0] and edges[1] <= limits.max
