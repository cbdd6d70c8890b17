"""Histograms standardised by landmarks: Nyul & Udupa, MRM 42:1072 (1999); Nyul, Udupa & Zhang, IEEE TMI 19:143 (2000).

A scan's landmarks are percentiles of its foreground: 1, the deciles (the variant that the second paper prefers), 99.
The standard scale is [0, 1]. A standard landmark is the mean over scans of where that percentile lies once the scan's
1 % is at 0 and its 99 % at 1 (training, sec. 2 of 1999). A scan is then mapped piece by piece, linearly between
landmarks, its own onto the standard ones. What lies beyond the outer landmarks is clipped to 0 and 1, which a store
would do to longer outer pieces too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.normalise.intensity import values_in

Landmarks = npt.NDArray[np.float64]
# Percent of the pixels of the foreground.
PERCENTILES = (1.0, *(float(10 * k) for k in range(1, 10)), 99.0)


def scan_landmarks(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> Landmarks:
    """[11] percentiles of `image` [C, *axes], all channels together, within `mask` [*axes]."""
    return np.percentile(image if mask is None else values_in(image, mask), PERCENTILES)


def has_scale(own: Landmarks) -> bool:
    """Whether a scan's landmarks span anything: not those of a constant scan, or a nearly constant one."""
    return bool(own[0] < own[-1])


def standard_landmarks(scans: Sequence[Landmarks]) -> Landmarks:
    """[11] standard landmarks, from 0 to 1, of scans by their own [11]; each `has_scale`, at least one."""
    return np.mean([(own - own[0]) / (own[-1] - own[0]) for own in scans], axis=0)


def standardise(
    image: npt.NDArray[np.floating], own: Landmarks, standard: Landmarks
) -> npt.NDArray[np.float64]:
    """`image` (any shape) on the standard scale, in [0, 1]; the scan `has_scale`.

    Where several of its landmarks are one value (a peak of the histogram), that value goes to the mean of their places;
    the ends stay 0 and 1.
    """
    values, which = np.unique(own, return_inverse=True)
    places = np.bincount(which, weights=standard) / np.bincount(which)
    places[0], places[-1] = 0.0, 1.0
    return np.interp(image, values, places)
