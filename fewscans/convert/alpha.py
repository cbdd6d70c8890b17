"""Colour without its opacity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ON_BLACK = "alpha was put on black"


def without_alpha(
    array: npt.NDArray[np.generic],
) -> tuple[npt.NDArray[np.generic], tuple[str, ...]]:
    """[C + 1, H, W] -> ([C, H, W], notes); the last channel is opacity, dropped where it is the same everywhere."""
    colour, alpha = array[:-1], array[-1]
    if (alpha == alpha.flat[0]).all():
        return colour, ()
    full = int(np.iinfo(array.dtype).max)
    product = colour.astype(np.uint64) * alpha.astype(np.uint64)
    # Rounded to nearest in whole numbers, so that every processor gives the same bytes.
    return ((product + full // 2) // full).astype(array.dtype), (ON_BLACK,)
