"""Sets of permutations that are as far apart as can be: in any two of them nearly everything has another place.

Noroozi & Favaro 2016 (algorithm 1) search such sets greedily. For the numbers of cells that occur here, 4, 8, 9 and 27,
all powers of primes q, the maps x -> a x + b over the field of q elements, a != 0, are q (q - 1) permutations any two
of which agree in one place at most; no larger set has that, and those of one a agree nowhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Coefficients (lowest first) of what x^degree is, in the field of p^degree elements: q -> (p, coefficients).
_FIELDS: dict[int, tuple[int, tuple[int, ...]]] = {
    4: (2, (1, 1)),  # x^2 = x + 1
    8: (2, (1, 1, 0)),  # x^3 = x + 1
    9: (3, (2, 0)),  # x^2 = -1
    27: (3, (2, 1, 0)),  # x^3 = x + 2
}


def most(q: int) -> int:
    """Permutations of `q` places that `far_apart` has."""
    return q * (q - 1)


def far_apart(q: int, n: int) -> NDArray[np.int64]:
    """The first `n` <= `most(q)` permutations [n, q] of q = 4, 8, 9 or 27 places; two agree in one place at most."""
    a, b = np.divmod(np.arange(n), q)
    return _sum(q, _products(q)[a + 1], b[:, None])


def _digits(q: int) -> NDArray[np.int64]:
    """Coefficients [q, degree] of each element, lowest first."""
    p, rule = _FIELDS[q]
    return np.arange(q)[:, None] // p ** np.arange(len(rule)) % p


def _sum(q: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    p, rule = _FIELDS[q]
    digits = _digits(q)
    return (digits[x] + digits[y]) % p @ (p ** np.arange(len(rule)))


def _products(q: int) -> NDArray[np.int64]:
    """[q, q]: by repeated multiplication with x, which shifts the coefficients and replaces the highest power."""
    p, rule = _FIELDS[q]
    digits = _digits(q)
    shifted, total = digits.copy(), np.zeros((q, q, len(rule)), dtype=np.int64)
    for power in range(len(rule)):
        total += digits[:, None, power, None] * shifted[None]
        top = shifted[:, -1:]
        shifted = (np.roll(shifted, 1, axis=1) * (np.arange(len(rule)) > 0) + top * rule) % p
    return total % p @ (p ** np.arange(len(rule)))
