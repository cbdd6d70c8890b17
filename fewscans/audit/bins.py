"""Bins of any attribute, made without looking at labels; missing is a bin too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST_VALUES = 30  # bins of a text attribute; rarer values share one
QUANTILES = 8


def cut(values: Sequence[object]) -> npt.NDArray[np.int64]:
    """[n] bin of each value, from 0.

    A value that 2 % of the scans (at least 5) share is a bin of its own: 630 pixels wide may name a
    hospital. Other numbers are cut at quantiles; other texts are bins of their own while there are
    at most 30.
    """
    clean = [_clean(value) for value in values]
    given = [value for value in clean if value is not None]
    numbers = _numbers(given)
    frequent_from = max(5, math.ceil(0.02 * len(clean)))
    if numbers is None:
        ranked = sorted(Counter(given).items(), key=lambda item: (-item[1], item[0]))
        names = {value: i + 2 for i, (value, n) in enumerate(ranked[:MOST_VALUES]) if n > 1}
        raw = [0 if value is None else names.get(value, 1) for value in clean]
        return np.unique(raw, return_inverse=True)[1].reshape(-1)
    as_number = [None if value is None else numbers[value] for value in clean]
    counts = Counter(number for number in as_number if number is not None)
    own = {
        number: i
        for i, number in enumerate(sorted(n for n, c in counts.items() if c >= frequent_from))
    }
    rest = np.array([number for number in as_number if number is not None and number not in own])
    n_quantiles = min(QUANTILES, max(1, len(rest) // 10))
    edges = (
        np.unique(np.quantile(rest, np.linspace(0, 1, n_quantiles + 1)[1:-1]))
        if len(rest)
        else np.empty(0)
    )
    offset = 1 + len(own)
    raw = [
        0
        if number is None
        else 1 + own[number]
        if number in own
        else offset + int(np.searchsorted(edges, number, side="right"))
        for number in as_number
    ]
    return np.unique(raw, return_inverse=True)[1].reshape(-1)


def _clean(value: object) -> str | None:
    """Text of a value; None where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def _numbers(texts: list[str]) -> dict[str, float] | None:
    """Text -> number; None where one is not a finite number."""
    numbers = {}
    for text in set(texts):
        try:
            numbers[text] = float(text)
        except ValueError:
            return None
        if not math.isfinite(numbers[text]):
            return None
    return numbers
