"""Pairs of scans that show the same: by pixels, or nearly, by correlation of thumbnails."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.audit.neighbours import correlated_pairs
from fewscans.audit.thumbnails import Thumbnails, unit_vectors

# Scans of one content whose pairs are all listed; of more, each with the first.
MOST_PAIRS = 50
BLOCK = 1024


def find_duplicates(scans: pd.DataFrame, thumbnails: Thumbnails, threshold: float) -> pd.DataFrame:
    """Rows `a, b` (positions in `scans`, a < b), `kind` (exact, near), `correlation`; sorted.

    Constant scans are left out: they show nothing, so that two of them show nothing in common.
    """
    usable = (scans["status"] == "ok").to_numpy(bool) & ~thumbnails.constant
    digests = scans["pixel_sha256"].fillna("").to_numpy(object)
    exact = _exact_pairs(digests, usable)
    near = find_near(thumbnails.pictures, usable, threshold)
    # By digest and not by pair: of many equal scans not every pair is listed.
    a, b = digests[near["a"]], digests[near["b"]]
    same = (a == b) & (a != "")
    pairs = pd.concat([exact, near[~same.astype(bool)]], ignore_index=True)
    return pairs.sort_values(["a", "b"], ignore_index=True)


def _exact_pairs(digests: npt.NDArray[np.object_], usable: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Pairs of equal `pixel_sha256`, correlation 1."""
    same: dict[str, list[int]] = {}
    for i in np.flatnonzero(usable):
        if digests[i]:
            same.setdefault(digests[i], []).append(int(i))
    pairs: list[tuple[int, int]] = []
    for at in same.values():
        few = len(at) <= MOST_PAIRS
        pairs += combinations(at, 2) if few else [(at[0], other) for other in at[1:]]
    return _frame(np.array(pairs, dtype=np.int64).reshape(-1, 2), "exact", np.ones(len(pairs)))


def find_near(
    pictures: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_], threshold: float
) -> pd.DataFrame:
    """Pairs of [n, 32, 32] `pictures` with a Pearson correlation of at least `threshold`, of the `usable` [n]."""
    at = np.flatnonzero(usable)
    vectors = np.empty((len(at), pictures[0].size if len(pictures) else 1), np.float32)
    for start in range(0, len(at), BLOCK):  # unit vectors are made in float64
        part = slice(start, start + BLOCK)
        vectors[part] = unit_vectors(pictures[at[part]])
    pairs, values = correlated_pairs(vectors, threshold)
    return _frame(at[pairs], "near", values)


def _frame(
    pairs: npt.NDArray[np.int64], kind: str, values: npt.NDArray[np.float64]
) -> pd.DataFrame:
    return pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1], "kind": kind, "correlation": values})
