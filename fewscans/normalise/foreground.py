"""Where the body is in a scan: the largest connected part above Otsu's threshold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

AIR_HU = -1000.0
# A few hot pixels (metal, text) must not stretch the histogram that the threshold is chosen in.
_TAILS = (0.5, 99.5)


def foreground_mask(gray: npt.NDArray[np.floating], ct: bool) -> npt.NDArray[np.bool_]:
    """[*axes] -> the same shape, True in the foreground; it has no holes, and is all of a constant image.

    The foreground is bright on dark. With `ct`, what is below air (padding around the field of view) counts as air.
    """
    from skimage.filters import threshold_otsu

    low, high = np.percentile(gray, _TAILS)
    if not low < high:
        low, high = gray.min(), gray.max()
    clipped = np.clip(gray, max(low, min(AIR_HU, high)) if ct else low, high)
    if clipped.min() == clipped.max():
        return np.ones(gray.shape, dtype=bool)
    parts, _ = ndimage.label(clipped > threshold_otsu(clipped))
    sizes = np.bincount(parts.ravel())
    largest = 1 + int(np.argmax(sizes[1:]))
    return ndimage.binary_fill_holes(parts == largest)


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
