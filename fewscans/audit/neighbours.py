"""Pairs of pictures with a high correlation, all of them, without correlating every pair.

What a perceptual hash of the cosine transform keeps (Zauner 2010, "Implementation and benchmarking of perceptual image
hash functions"), kept as numbers in place of bits: then it cannot miss. Pictures of mean 0 and length 1 with a
correlation of c are sqrt(2 - 2 c) apart; the cosine transform keeps distances, and leaving coefficients out can only
shorten them. So every pair at or above a correlation lies within that distance in a tree of the low coefficients.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree

Reals = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

LOW = 16  # coefficients kept one by one; the length of the rest is one number more
LEAF = 32
BLOCK = 512  # pictures asked about, and pairs correlated, at once: memory where they are all alike
DENSE = 20  # a product of matrices takes as long as every 20th of its pairs one by one
MOST_EACH = 50  # pairs listed of one picture; beyond, those that hold its cluster together
# float32 sums differ in the last digits between processors; the margin keeps the pairs the same.
MARGIN = 1e-4


def correlated_pairs(vectors: npt.NDArray[np.float32], threshold: float) -> tuple[Places, Reals]:
    """([P, 2], [P]) pairs (a < b) of unit `vectors` [n, S * S] with correlations of at least `threshold`.

    Correlations are rounded to 6 digits. All pairs are listed, but where one picture has more than 50 partners of a
    block: then its 50 nearest, and enough others to join what is joined. A vector of zeros is no picture.
    """
    seen = np.flatnonzero(np.any(vectors != 0, axis=1))
    points = low_coefficients(vectors[seen])
    tree = cKDTree(points, leafsize=LEAF)
    radius = float(np.sqrt(2 * (1 - threshold))) + MARGIN
    pairs, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    # In the tree's own order a block lies close together, so that most of the tree is passed over at once.
    for start in range(0, len(seen), BLOCK):
        asked = tree.indices[start : start + BLOCK]
        near = cKDTree(points[asked], leafsize=LEAF)
        within = near.sparse_distance_matrix(tree, radius, output_type="ndarray")
        a, b = asked[within["i"]], within["j"]
        found, worth = _correlated(vectors, seen[a[a < b]], seen[b[a < b]], threshold)
        kept = _thinned(found, worth, len(vectors))
        pairs.append(found[kept])
        values.append(worth[kept])
    joined, worths = np.concatenate(pairs), np.concatenate(values)
    order = np.lexsort((joined[:, 1], joined[:, 0]))
    return joined[order], worths[order]


def low_coefficients(vectors: npt.NDArray[np.float32]) -> Reals:
    """[n, 17] coordinates that are never farther apart than the unit `vectors` [n, S * S] themselves.

    The lowest coefficients of the orthonormal cosine transform, by frequency, and the length of what is left (lengths
    differ by no more than vectors do).
    """
    side = int(np.sqrt(vectors.shape[1]))
    frequency = np.add.outer(np.arange(side), np.arange(side)).ravel()
    low = np.argsort(frequency, kind="stable")[:LOW]
    parts = [np.empty((0, LOW + 1))]
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        kept = dctn(block.reshape(-1, side, side), axes=(1, 2), norm="ortho")
        kept = kept.reshape(len(block), -1)[:, low]
        rest = (block**2).sum(axis=1) - (kept**2).sum(axis=1)
        parts.append(np.column_stack([kept, np.sqrt(rest.clip(min=0))]))
    return np.concatenate(parts)


def _correlated(
    vectors: npt.NDArray[np.float32], a: Places, b: Places, threshold: float
) -> tuple[Places, Reals]:
    """Those of the pairs (a, b) at or above `threshold`, and correlations to 6 digits."""
    values = np.empty(len(a))
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    if len(a) * DENSE > len(rows) * len(columns):
        every = vectors[rows].astype(np.float64) @ vectors[columns].astype(np.float64).T
        values = every[row, column]
    else:
        for start in range(0, len(a), BLOCK):
            part = slice(start, start + BLOCK)
            values[part] = (vectors[a[part]].astype(np.float64) * vectors[b[part]]).sum(axis=1)
    values = np.minimum(values.round(6), 1.0)
    keep = values >= threshold
    return np.stack([a, b], axis=1)[keep].astype(np.int64), values[keep]


def _thinned(pairs: Places, values: Reals, n: int) -> npt.NDArray[np.bool_]:
    """[P] which pairs to list: of each first picture the 50 nearest, and a spanning forest of all."""
    order = np.lexsort((pairs[:, 1], -values, pairs[:, 0]))
    first = pairs[order, 0]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    kept = np.zeros(len(pairs), bool)
    kept[order[rank < MOST_EACH]] = True
    if not kept.all():
        graph = coo_array(
            (np.arange(1.0, len(pairs) + 1), (pairs[:, 0], pairs[:, 1])), shape=(n, n)
        )
        kept[minimum_spanning_tree(graph.tocsr()).data.astype(np.int64) - 1] = True
    return kept
