"""Intervals of an AUROC near its edge, where resamples fail: DeLong on the logit scale, and Newcombe at 0 or 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]


def placements(positive: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """DeLong's V10 of each positive and V01 of each negative; the mean of either is the AUROC.

    V10 is the share of negatives that a positive beats (half where equal), V01 the share of positives that beat a
    negative; from midranks (Sun and Xu 2014).
    """
    everyone = rankdata(score)
    up, down = score[positive], score[~positive]
    v10 = (everyone[positive] - rankdata(up)) / len(down)
    v01 = 1 - (everyone[~positive] - rankdata(down)) / len(up)
    return v10, v01


def influence(
    positive: NDArray[np.bool_], score: Floats, group: NDArray[np.int64], n_groups: int
) -> Floats:
    """[G] what each group adds to the AUROC's deviation from its expectation (sums to 0).

    Units of one group are summed, so they need not be independent (Obuchowski 1997).
    """
    v10, v01 = placements(positive, score)
    found = np.zeros(n_groups)
    np.add.at(found, group[positive], (v10 - v10.mean()) / len(v10))
    np.add.at(found, group[~positive], (v01 - v01.mean()) / len(v01))
    return found


def influence_variance(values: Floats, strata: NDArray[np.object_]) -> float:
    """Variance of an AUROC from the influence [G] of its groups; with a unit a group, DeLong's (1988)."""
    total = 0.0
    for name in sorted(set(strata)):
        part = values[strata == name]
        m = len(part)
        if m > 1:
            total += m / (m - 1) * float(((part - part.mean()) ** 2).sum())
    return total


def logit_interval(value: float, variance: float, confidence: float) -> tuple[float, float]:
    """Interval that is symmetric on the logit scale and stays within (0, 1); `value` must too."""
    z = norm.ppf(0.5 + confidence / 2)
    half = z * np.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


def newcombe_interval(
    value: float, n_positive: int, n_negative: int, confidence: float
) -> tuple[float, float]:
    """Score-like interval from the AUROC and counts alone (Newcombe 2006, method 5); has a width at 0 and 1."""
    z = float(norm.ppf(0.5 + confidence / 2))
    size = (n_positive + n_negative) / 2 - 1

    def variance(a: float) -> float:
        return (
            a
            * (1 - a)
            / (n_positive * n_negative)
            * (1 + size * (1 - a) / (2 - a) + size * a / (1 + a))
        )

    def excess(a: float) -> float:
        return abs(a - value) - z * float(np.sqrt(variance(a)))

    tiny = 1e-9
    low = brentq(excess, tiny, value - tiny) if value > 2 * tiny else 0.0
    high = brentq(excess, value + tiny, 1 - tiny) if value < 1 - 2 * tiny else 1.0
    return float(low), float(high)
