"""Pairs of pictures with a high correlation, all of them, without correlating every pair.

Pictures of mean 0 and length 1 with a correlation of c are sqrt(2 - 2 c) apart, and a rotation keeps distances. Leaving
coordinates out can only shorten them, so a pair that is too far apart in a few coordinates is none. Taken are the
first principal axes of the pictures themselves, along which those that share an anatomy differ most. All pairs are
compared in 16 numbers by products of matrices, what that leaves in 48, and what is left then as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, qr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

Reals = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

FIRST, AXES = 16, 48  # coordinates of the product of matrices; of the look at what it leaves
SAMPLE = 512  # pictures that tell the axes; any axes are right, these leave the fewest pairs
ROWS, COLUMNS = 256, 4096  # a product of matrices of so many numbers stays in the processor's cache
BLOCK = 512  # pictures turned, and pairs correlated, at once
DENSE = 20  # a product of matrices takes as long as every 20th of its pairs one by one
MOST_EACH = 50  # pairs listed of one picture; beyond, those that hold its cluster together
MOST_HELD = 2**20  # pairs in memory before they are thinned
# Of a squared distance. Correlations are rounded to 6 digits (1e-6), and float32 is exact to less: with it the pairs
# are the same on each processor.
MARGIN = 1e-5


def correlated_pairs(vectors: Singles, threshold: float) -> tuple[Places, Reals]:
    """([P, 2], [P]) pairs (a < b) of unit `vectors` [n, S] with correlations of at least `threshold`, sorted.

    Correlations are rounded to 6 digits. All pairs are listed, but where one picture has more than 50 partners behind
    it: then its 50 nearest, and enough others to join what is joined (those of a spanning forest with the highest
    correlations). A vector of zeros is no picture.
    """
    seen = np.flatnonzero(np.any(vectors != 0, axis=1))
    points = principal_coordinates(vectors, seen)
    reach = 2 * (1 - threshold) + MARGIN  # squared
    pairs, values = np.empty((0, 2), np.int64), np.empty(0)
    held, most = [(pairs, values)], MOST_HELD
    for a, b in _near_in_few(points, reach):
        if len(a) * DENSE < len(np.unique(a)) * len(np.unique(b)):
            near = _near_in_all(points, a, b, reach)
            a, b = a[near], b[near]
        held.append(_correlated(vectors, seen[a], seen[b], threshold))
        if sum(len(part) for _, part in held) > most:
            pairs, values = _thinned(held, len(vectors))
            held, most = [(pairs, values)], 2 * len(pairs) + MOST_HELD
    return _thinned(held, len(vectors))


def principal_coordinates(vectors: Singles, at: Places) -> Singles:
    """[N, 48] coordinates of those of `vectors` [n, S] that `at` [N] names; never farther apart than they are.

    Along orthonormal axes, the first principal ones of 512 of them; fewer axes where there are fewer vectors.
    """
    if not len(at):
        return np.empty((0, 1), np.float32)
    few = at[np.linspace(0, len(at) - 1, min(len(at), SAMPLE)).astype(np.int64)]
    sample = vectors[few].astype(np.float64)
    middle = sample.mean(axis=0)
    sample -= middle
    n_axes = min(len(few), AXES, sample.shape[1])
    combined = eigh(sample @ sample.T, subset_by_index=(len(few) - n_axes, len(few) - 1))[1]
    # Where the sample has fewer directions than axes, those that are made up are orthonormal too.
    axes = qr(sample.T @ combined[:, ::-1], mode="economic")[0].astype(np.float32)
    points = np.empty((len(at), n_axes), np.float32)
    for start in range(0, len(at), BLOCK):
        part = slice(start, start + BLOCK)
        points[part] = (vectors[at[part]] - middle.astype(np.float32)) @ axes
    return points


def _near_in_few(points: Singles, reach: float) -> Iterator[tuple[Places, Places]]:
    """Pairs (a < b) whose squared distance in the first 16 coordinates is at most `reach`, block by block."""
    first = points[:, :FIRST]
    half = -0.5 * (first.astype(np.float64) ** 2).sum(axis=1)
    # x.y - x.x / 2 - y.y / 2 is minus half the squared distance.
    one = np.ones(len(first))
    left = np.column_stack([first, half, one]).astype(np.float32)
    right = np.column_stack([first, one, half]).astype(np.float32)
    for top in range(0, len(first), ROWS):
        rows = left[top : top + ROWS]
        for side in range(top, len(first), COLUMNS):
            columns = right[side : side + COLUMNS]
            found = np.flatnonzero(rows @ columns.T >= np.float32(-0.5 * reach))
            a, b = np.divmod(found, len(columns))
            a, b = a + top, b + side
            if (before := a < b).any():
                yield a[before], b[before]


def _near_in_all(points: Singles, a: Places, b: Places, reach: float) -> npt.NDArray[np.bool_]:
    """[P] which of the pairs are no farther apart in all coordinates."""
    near = np.empty(len(a), bool)
    for start in range(0, len(a), ROWS * BLOCK):
        part = slice(start, start + ROWS * BLOCK)
        near[part] = ((points[a[part]] - points[b[part]]) ** 2).sum(axis=1) <= reach
    return near


def _correlated(vectors: Singles, a: Places, b: Places, threshold: float) -> tuple[Places, Reals]:
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


def _thinned(held: list[tuple[Places, Reals]], n: int) -> tuple[Places, Reals]:
    """Of the pairs of each first picture the 50 nearest, and a spanning forest of all; sorted.

    What is thinned in parts is the same as what is thinned at once: no part loses a pair that all together keep.
    """
    pairs = np.concatenate([part for part, _ in held])
    values = np.concatenate([part for _, part in held])
    order = np.lexsort((pairs[:, 1], -values, pairs[:, 0]))
    pairs, values = pairs[order], values[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    kept = rank < MOST_EACH
    if not kept.all():
        # Weights that no two pairs share, so that there is one forest.
        weights = np.empty(len(pairs))
        weights[np.lexsort((pairs[:, 1], pairs[:, 0], -values))] = np.arange(1.0, len(pairs) + 1)
        graph = coo_array((weights, (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
        chosen = minimum_spanning_tree(graph).data
        kept |= np.isin(weights, chosen)
        pairs, values = pairs[kept], values[kept]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]
