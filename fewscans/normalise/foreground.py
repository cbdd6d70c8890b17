"""Where the body is in a scan: the largest connected part above Otsu's threshold."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fewscans.normalise.order import blocks, percentiles

AIR_HU = -1000.0
# A few hot pixels (metal, text) must not stretch the histogram that the threshold is chosen in.
_TAILS = (0.5, 99.5)


def foreground_mask(gray: npt.NDArray[Any], ct: bool) -> npt.NDArray[np.bool_]:
    """[*axes] -> the same shape, True in the foreground; it has no holes, and is all of a constant image.

    The foreground is bright on dark. With `ct`, what is below air (padding around the field of view) counts as air.
    """
    lowest, highest = float(gray.min()), float(gray.max())
    low, high = percentiles(gray, _TAILS)
    if not low < high:
        low, high = lowest, highest
    if ct:
        low = max(low, min(AIR_HU, high))
    first, last = (min(max(edge, low), high) for edge in (lowest, highest))
    if first == last:
        return np.ones(gray.shape, dtype=bool)
    parts, n = _labelled(gray > _threshold(gray, first, last))
    sizes: Any = sum(np.bincount(block, minlength=n + 1) for block in blocks(parts))
    body = parts == 1 + int(np.argmax(sizes[1:]))
    del parts  # as large as the scan
    return _filled(body)


def _filled(body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """`body` with what is not connected to the border of the image."""
    parts, n = _labelled(~body)
    inside = np.ones(n + 1, bool)
    for axis in range(body.ndim):
        for end in (0, -1):
            inside[parts.take(end, axis)] = False
    inside[0] = True  # the body, where it reaches the border
    return inside[parts]


def _threshold(gray: npt.NDArray[np.generic], first: float, last: float) -> float:
    """Otsu's, of the values clipped to `first` and `last`, by 256 bins between them.

    The upper edge of the last bin of the dark class, as ITK has it: from its middle, where scikit-image has it, half of
    the values of that bin would be bright.
    """
    from skimage.filters import threshold_otsu

    edges = np.histogram_bin_edges([], 256, (first, last))
    counts = sum(
        np.histogram(np.clip(block.astype(np.float64), first, last), edges)[0]
        for block in blocks(gray)
    )
    half = (edges[1] - edges[0]) / 2
    return float(threshold_otsu(hist=(counts, edges[:-1] + half)) + half)


def _labelled(above: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.integer], int]:
    """(number of its connected part for each pixel, how many there are), in two bytes where they do."""
    with contextlib.suppress(RuntimeError):  # more parts than that
        return ndimage.label(above, output=np.uint16)
    return ndimage.label(above)


def box_of(mask: npt.NDArray[np.bool_], margin: float) -> tuple[tuple[int, int], ...]:
    """(first, behind the last) along each axis of what is True, widened by `margin` of its sides, within the image."""
    box = []
    for axis, n in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        first, behind = int(inside[0]), int(inside[-1]) + 1
        more = math.ceil(margin * (behind - first))
        box.append((max(0, first - more), min(n, behind + more)))
    return tuple(box)
