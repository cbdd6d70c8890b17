"""Resamples of groups within fold and class, the same for every arm, and the intervals that they give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fewscans.keyed import key_of

Floats = NDArray[np.float64]


def resample_weights(strata: Sequence[str], resamples: int, *key: str | int) -> Floats:
    """[G, R] weight of each group in each resample; the weights of a stratum always sum to its number of groups.

    From a stratum of m groups m - 1 are drawn with replacement, and each draw weighs m / (m - 1): the rescaled
    bootstrap of Rao and Wu (1988). Drawing m would make the variance too small by (m - 1) / m, a fifth with
    five groups, and test folds of few scans are that small. A lone group stays as it is: it tells nothing of spread.

    Parameters
    ----------
    strata
        Stratum of each group; groups are drawn within theirs.
    resamples
        R.
    key
        What the random numbers follow from; nothing else does (not the order of files or arms).
    """
    named = np.asarray(strata, dtype=object)
    weights = np.ones((len(named), resamples))
    for name in sorted(set(strata)):
        members = np.flatnonzero(named == name)
        m = len(members)
        if m < 2:
            continue
        rng = np.random.Generator(np.random.Philox(key=key_of(*key, name)))
        drawn = (rng.random((resamples, m - 1)) * m).astype(np.int64)
        cells = drawn + np.arange(resamples)[:, None] * m
        counts = np.bincount(cells.ravel(), minlength=resamples * m).reshape(resamples, m)
        weights[members] = counts.T * (m / (m - 1))
    return weights


def percentile_interval(values: Floats, confidence: float) -> tuple[float, float]:
    """Low and high of the middle share `confidence` of `values` [R]."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def wilson_interval(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Interval of a share of `n` (Wilson 1927); has a width even at 0 and 1, where resamples have none."""
    z = float(norm.ppf(0.5 + confidence / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
