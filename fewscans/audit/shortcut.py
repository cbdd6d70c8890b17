"""Shortcut test: whether the label can be told from what should not tell it, as the file type.

Each attribute is cut into bins without looking at labels; the score of a bin is its share of a
class in the training folds (naive Bayes over all attributes together). Folds are by group and
stratified. The AUC is taken per fold and averaged: pooled over folds it sits below 0.5 under a
null. Its interval is a bootstrap of groups within fold and class; its p-value counts permutations
of the groups' labels within folds, an exact test whatever the attribute, and is adjusted by Holm
over the attributes. Counts per bin are all that any step needs, which is why a thousand refits take
a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from fewscans.audit.bins import cut
from fewscans.split.order import deal, majority_by

Reals = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

FOLDS = 5
RESAMPLES = 999
ALPHA = 0.05
PRIOR = 2.0  # pseudo-scans of the training folds' class shares in every bin
TOGETHER = "all"
METHOD = (
    "cross-validated AUC by group, averaged over folds; 95 % interval by bootstrap of groups "
    "within fold and class; "
    "p by permutation of groups' labels, adjusted by Holm"
)
BLOCK = 2_000_000  # numbers in one block of permuted scores


@dataclass(frozen=True)
class Counts:
    """Scans counted by profile (a distinct row of bins) and group, fold by fold.

    U profiles, G groups, P label vectors at once.

    Attributes
    ----------
    bins
        Per attribute, [U] bin of each profile.
    onehots
        Per attribute, [bins, U] of the same: counts by profile to counts by bin.
    folds
        Per fold, [U, G] scans of each group in each profile; 0 for groups of other folds.
    """

    bins: list[Codes]
    onehots: list[csr_array]
    folds: list[csr_array]


def shortcut_test(scans: pd.DataFrame, attributes: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """A row per attribute and one for `all` of them together.

    Parameters
    ----------
    scans
        Labelled scans: `group, target` (class; a group of two counts for its majority).
    attributes
        Name -> value per scan; None, NaN and "" are missing, which is a value too. Attributes with
        one value for all scans are left out.

    Returns
    -------
    pandas.DataFrame
        Columns `attribute, auc, low, high, p, p_holm, warn, n_groups`. AUC is macro-averaged one
        against the rest for more than two classes. `warn` where the
        adjusted p is at most 0.05 and the lower limit above 0.5. Empty where a class has under two
        groups.
    """
    columns = ["attribute", "auc", "low", "high", "p", "p_holm", "warn", "n_groups"]
    classes = majority_by(scans, "group")
    codes = {name: cut(values) for name, values in attributes.items()}
    codes = {name: code for name, code in codes.items() if len(set(code)) > 1}
    if classes.nunique() < 2 or classes.value_counts().min() < 2 or not codes:
        return pd.DataFrame(columns=columns)
    k = min(FOLDS, int(classes.value_counts().min()))
    dealt = deal(classes, k, "shortcut")
    fold_of = np.array([dealt[group] for group in classes.index])
    label_of = np.unique(classes.to_numpy(str), return_inverse=True)[1]
    group_of = pd.Index(classes.index).get_indexer(scans["group"])
    tests = {name: [code] for name, code in codes.items()} | (
        {TOGETHER: list(codes.values())} if len(codes) > 1 else {}
    )
    # With m attributes Holm asks for p <= 0.05 / m, which needs at least 20 m permutations to be
    # reached at all.
    n_null = max(RESAMPLES, 40 * len(tests) - 1)
    permuted = permute_within(label_of, fold_of, n_null)
    weights = bootstrap_weights(label_of, fold_of, RESAMPLES)
    rows = []
    for name, used in tests.items():
        counts = count(used, group_of, fold_of)
        value = float(macro_auc(counts, label_of[:, None])[0])
        null = macro_auc(counts, permuted)
        spread = macro_auc(counts, label_of[:, None], weights)
        low, high = np.nanpercentile(spread, [2.5, 97.5])
        p = (1 + int((null >= value - 1e-12).sum())) / (n_null + 1)
        rows.append(
            {"attribute": name, "auc": value, "low": float(low), "high": float(high), "p": p}
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["warn"] = (table["p_holm"] <= ALPHA) & (table["low"] > 0.5)
    table["n_groups"] = len(classes)
    return table[columns]


def holm(p: Reals) -> Reals:
    """Holm's adjusted p-values (1979): those at most alpha have a family-wise error of alpha."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def permute_within(labels: Codes, folds: Codes, n: int) -> Codes:
    """[G, n] labels, permuted among the groups of each fold, which stay stratified so."""
    rng = np.random.Generator(np.random.Philox(key=1))
    out = np.empty((len(labels), n), dtype=np.int64)
    for fold in np.unique(folds):
        at = np.flatnonzero(folds == fold)
        out[at] = rng.permuted(np.repeat(labels[at][None], n, axis=0), axis=1).T
    return out


def bootstrap_weights(labels: Codes, folds: Codes, n: int) -> Reals:
    """[G, n] how often each group is drawn, with replacement within fold and class."""
    rng = np.random.Generator(np.random.Philox(key=2))
    out = np.empty((len(labels), n))
    for fold, label in sorted(set(zip(folds.tolist(), labels.tolist(), strict=True))):
        at = np.flatnonzero((folds == fold) & (labels == label))
        out[at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)), size=n).T
    return out


def count(codes: list[Codes], group_of: Codes, fold_of: Codes) -> Counts:
    """Scans counted by distinct row of bins, group, and fold of the group."""
    profiles, profile_of = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    profile_of = profile_of.reshape(-1)
    shape = (len(profiles), len(fold_of))
    folds = []
    for fold in np.unique(fold_of):
        inside = fold_of[group_of] == fold
        folds.append(
            csr_array((np.ones(inside.sum()), (profile_of[inside], group_of[inside])), shape=shape)
        )
    bins = [profiles[:, a] for a in range(profiles.shape[1])]
    every = np.arange(len(profiles))
    onehots = [csr_array((np.ones(len(every)), (bin_of, every))) for bin_of in bins]
    return Counts(bins, onehots, folds)


def macro_auc(counts: Counts, labels: Codes, weights: Reals | None = None) -> Reals:
    """[P] AUC averaged over folds and, for more than two classes, over classes against the rest.

    labels: [G, P] class per group. With `weights` [G, P] and labels [G, 1] the scores are fitted
    once, on the real groups, and the test groups are weighted: the bootstrap of one fitted model.
    """
    n_classes = int(labels.max()) + 1
    against = range(n_classes) if n_classes > 2 else [1]
    width = labels.shape[1] if weights is None else weights.shape[1]
    step = max(1, BLOCK // max(1, len(counts.bins[0])))
    blocks = []
    for start in range(0, width, step):
        part = slice(start, start + step)
        block = labels[:, part] if weights is None else labels
        chosen = None if weights is None else weights[:, part]
        blocks.append(
            np.mean(
                [_fold_mean(counts, (block == label).astype(float), chosen) for label in against],
                axis=0,
            )
        )
    return np.concatenate(blocks)


def _fold_mean(counts: Counts, positive: Reals, weights: Reals | None) -> Reals:
    """[P] mean over folds of the AUC of `positive` [G, P] groups against the others."""
    everyone = [np.asarray(fold.sum(axis=1)).reshape(-1, 1) for fold in counts.folds]
    hits = [fold @ positive for fold in counts.folds]
    n_all, n_hits = sum(everyone), sum(hits)
    values = []
    for fold, here, hit in zip(counts.folds, everyone, hits, strict=True):
        score = scores(counts, n_hits - hit, n_all - here)
        if weights is None:
            pos, neg = hit, here - hit
        else:
            pos, neg = fold @ (weights * positive), fold @ (weights * (1 - positive))
        present = here[:, 0] > 0
        values.append(
            weighted_auc(np.broadcast_to(score, pos.shape)[present], pos[present], neg[present])
        )
    # A fold without one of the two classes has no AUC; folds are stratified, so it is rare (one
    # against the rest).
    stacked = np.stack(values)
    seen = np.isfinite(stacked)
    return np.where(seen, stacked, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)


def scores(counts: Counts, hits: Reals, everyone: Reals) -> Reals:
    """[U, P] log odds of the class in each profile, from training counts.

    hits: [U, P] training scans of the class per profile; everyone: [U, 1] of all classes.
    """
    prior = hits.sum(axis=0) / everyone.sum()
    total = np.zeros(hits.shape)
    for bin_of, onehot in zip(counts.bins, counts.onehots, strict=True):
        share = (onehot @ hits + PRIOR * prior) / (onehot @ everyone + PRIOR)
        # A prior of 0 or 1: the class is missing from the training folds, or is all of them.
        share = share.clip(1e-9, 1 - 1e-9)
        total += np.log(share / (1 - share))[bin_of]
    return total.round(9)  # equal profiles must tie, though their sums were made in another order


def weighted_auc(score: Reals, pos: Reals, neg: Reals) -> Reals:
    """[P] probability that a positive outranks a negative, ties counting half; NaN without both.

    score, pos, neg: [U, P]; `pos` and `neg` are weights of the two classes at each score.
    """
    order = np.argsort(score, axis=0, kind="stable")
    score, pos, neg = (np.take_along_axis(x, order, axis=0) for x in (score, pos, neg))
    upto = np.cumsum(neg, axis=0)
    before = upto - neg
    rank = np.arange(len(score))[:, None]
    new = np.ones(score.shape, dtype=bool)
    new[1:] = score[1:] != score[:-1]
    last = np.ones(score.shape, dtype=bool)
    last[:-1] = new[1:]
    first_of_tie = np.maximum.accumulate(np.where(new, rank, 0), axis=0)
    last_of_tie = np.minimum.accumulate(np.where(last, rank, len(score))[::-1], axis=0)[::-1]
    lower = np.take_along_axis(before, first_of_tie, axis=0)
    equal_or_lower = np.take_along_axis(upto, last_of_tie, axis=0)
    pairs = pos.sum(axis=0) * neg.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (pos * (lower + equal_or_lower) / 2).sum(axis=0) / pairs
