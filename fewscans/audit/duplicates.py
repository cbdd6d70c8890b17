"""Pairs of scans that show the same: by pixels, or nearly, by correlation of thumbnails."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.audit.thumbnails import Thumbnails, perceptual_hash, unit_vectors

BLOCK = 2048
ALL_PAIRS_UP_TO = 20_000  # scans; above, a hash chooses the pairs that are correlated
# Bits of 63 in which hashes of near duplicates may differ. Of all pairs of busi_128 and covid_ct
# those correlated above 0.98 differ in up to 8 bits, those above 0.95 in up to 22.
RADIUS, WIDE_RADIUS, WIDE_BELOW = 12, 24, 0.98
# Scans of one content whose pairs are all listed; of more, each with the first.
MOST_PAIRS = 50


def find_duplicates(
    scans: pd.DataFrame,
    thumbnails: Thumbnails,
    threshold: float,
    all_pairs_up_to: int = ALL_PAIRS_UP_TO,
) -> pd.DataFrame:
    """Rows `a, b` (positions in `scans`, a < b), `kind` (exact, near), `correlation`; sorted.

    Constant scans are left out: they show nothing, so that two of them show nothing in common.
    """
    usable = (scans["status"] == "ok").to_numpy(bool) & ~thumbnails.constant
    digests = scans["pixel_sha256"].fillna("").to_numpy(object)
    exact = _exact_pairs(digests, usable)
    near = find_near(thumbnails.pictures, usable, threshold, all_pairs_up_to)
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
    pictures: npt.NDArray[np.float32],
    usable: npt.NDArray[np.bool_],
    threshold: float,
    all_pairs_up_to: int = ALL_PAIRS_UP_TO,
) -> pd.DataFrame:
    """Pairs of [n, 32, 32] `pictures` with a Pearson correlation of at least `threshold`.

    Up to `all_pairs_up_to` scans every pair is correlated. Above, only pairs whose perceptual
    hashes are near: sixteen times less arithmetic, for the risk of missing a pair.
    """
    at = np.flatnonzero(usable)
    vectors = unit_vectors(pictures[at])
    hashes = perceptual_hash(pictures[at]).astype(np.float32) if len(at) > all_pairs_up_to else None
    radius = RADIUS if threshold >= WIDE_BELOW else WIDE_RADIUS
    found = []
    for i in range(0, len(at), BLOCK):
        for j in range(i, len(at), BLOCK):
            if hashes is None:
                # float32 sums differ in the last digits between processors; the margin keeps the
                # candidates the same.
                rows, columns = np.nonzero(
                    vectors[i : i + BLOCK] @ vectors[j : j + BLOCK].T >= threshold - 1e-4
                )
            else:
                apart = (hashes.shape[1] - hashes[i : i + BLOCK] @ hashes[j : j + BLOCK].T) / 2
                rows, columns = np.nonzero(apart <= radius)
            rows, columns = rows + i, columns + j
            above = rows < columns
            found.append(_correlated(vectors, rows[above], columns[above], threshold))
    pairs = np.concatenate([p for p, _ in found]) if found else np.empty((0, 2), np.int64)
    values = np.concatenate([v for _, v in found]) if found else np.empty(0)
    return _frame(at[pairs], "near", values)


def _correlated(
    vectors: npt.NDArray[np.float32],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    threshold: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Those of the pairs (a, b) at or above `threshold`, and correlations to 6 digits."""
    values = np.empty(len(a))
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        values[part] = (vectors[a[part]].astype(np.float64) * vectors[b[part]]).sum(axis=1)
    values = np.minimum(values.round(6), 1.0)
    keep = values >= threshold
    return np.stack([a, b], axis=1)[keep], values[keep]


def _frame(
    pairs: npt.NDArray[np.int64], kind: str, values: npt.NDArray[np.float64]
) -> pd.DataFrame:
    return pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1], "kind": kind, "correlation": values})
