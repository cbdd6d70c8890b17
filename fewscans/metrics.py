"""Metrics of predictions: points by scikit-learn, and the same over many weighted resamples at once.

Ranking metrics (AUROC, average precision) belong to one model, so to one fold; counting metrics follow from a
confusion matrix, which may be summed over folds. With two classes the last is the positive one and a ranking metric
is its own; with more it is taken one class against the rest.

Shapes: n units (patients or scans), K classes, P positive classes (1 or K), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

RANKING = ("auroc", "average_precision")
COUNTING = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
METRICS = RANKING + COUNTING
PER_CLASS = ("auroc", "average_precision", "precision", "recall", "f1")

_RANKERS = {"auroc": roc_auc_score, "average_precision": average_precision_score}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def positives(n_classes: int) -> list[int]:
    """Classes that a ranking metric is taken for: the last of two, else each."""
    return [1] if n_classes == 2 else list(range(n_classes))


def ranking_points(target: Ints, prob: Floats, names: Sequence[str] = RANKING) -> dict[str, Floats]:
    """Ranking metrics [P] of one model; NaN where a class or its rest is not there.

    Parameters
    ----------
    target
        [n] class indices.
    prob
        [n, K].
    names
        Metrics that are wanted.
    """
    found = {name: np.full(len(positives(prob.shape[1])), np.nan) for name in names}
    for i, label in enumerate(positives(prob.shape[1])):
        positive = target == label
        if positive.any() and not positive.all():
            for name in names:
                found[name][i] = _RANKERS[name](positive, prob[:, label])
    return found


def counting_points(target: Ints, predicted: Ints, n_classes: int) -> dict[str, float]:
    """Macro averages of the counting metrics; a class that nobody predicted has precision 0."""
    labels = list(range(n_classes))
    precision, recall, f1, _ = precision_recall_fscore_support(
        target, predicted, labels=labels, average="macro", zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(target, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(target, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def weighted_ranking(
    positive: NDArray[np.bool_], score: Floats, weights: Floats, batch: int = 250
) -> tuple[Floats, Floats]:
    """AUROC and average precision of one class in every resample, each [R].

    A resample is a weight per unit, so a unit drawn twice weighs two: scores are sorted once, and each resample is a
    few sums along that order. Equal scores count half in the AUROC and share one threshold in the average precision,
    as in scikit-learn.

    Parameters
    ----------
    positive
        [n] whether a unit is of the class.
    score
        [n] its probability.
    weights
        [n, R]; both sides of `positive` must weigh something in each resample, else NaN comes out.
    batch
        Resamples at once; a matter of memory alone.
    """
    order = np.argsort(-score, kind="stable")
    ranked = -score[order]
    is_positive = positive[order]
    up, down = ranked[is_positive], ranked[~is_positive]
    above = np.searchsorted(down, up, side="left")  # negatives that score strictly higher
    level = np.searchsorted(down, up, side="right")  # ... or the same
    reached = np.searchsorted(up, up, side="right") - 1  # last positive at this threshold
    tied = bool((above != level).any())
    auroc, precision = np.empty(weights.shape[1]), np.empty(weights.shape[1])
    for start in range(0, weights.shape[1], batch):
        part = slice(start, start + batch)
        w_up = weights[order[is_positive], part]
        below = np.zeros((len(down) + 1, w_up.shape[1]))
        np.cumsum(weights[order[~is_positive], part], axis=0, out=below[1:])
        true = np.cumsum(w_up, axis=0)
        false = below[level]
        hits = true[reached]
        lost = (false + below[above]) / 2 if tied else false
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc[part] = 1 - _column_sums(w_up * lost) / (true[-1] * below[-1])
            share = np.divide(hits, hits + false, out=np.zeros_like(hits), where=hits > 0)
            precision[part] = _column_sums(w_up * share) / true[-1]
    return auroc, precision


def _column_sums(values: Floats) -> Floats:
    """Sum over rows, one after the other: `sum` adds in another order where there is but one column."""
    total: Floats = np.cumsum(values, axis=0, out=values)[-1]
    return total


def weighted_confusion(target: Ints, predicted: Ints, n_classes: int, weights: Floats) -> Floats:
    """[C, R, K, K] confusion matrices of C predictions [C, n] in every resample."""
    code = target[None] * n_classes + predicted
    cells = np.zeros((len(target), len(predicted), n_classes**2))
    np.put_along_axis(cells, code.T[:, :, None], 1.0, axis=2)
    counts = weights.T @ cells.reshape(len(target), -1)
    shape = (weights.shape[1], len(predicted), n_classes, n_classes)
    return np.ascontiguousarray(counts.reshape(shape).swapaxes(0, 1))


def counting_values(counts: Floats) -> dict[str, Floats]:
    """Counting metrics [...] (macro) of confusion matrices [..., K, K]; 0 where scikit-learn says 0."""
    by_class = counting_by_class(counts)
    there = counts.sum(axis=-1) > 0
    total = counts.sum(axis=(-2, -1))
    correct = np.trace(counts, axis1=-2, axis2=-1)
    recalled = np.where(there, by_class["recall"], 0.0).sum(axis=-1)
    return {
        "accuracy": correct / total,
        "balanced_accuracy": recalled / there.sum(axis=-1),
        **{name: by_class[name].mean(axis=-1) for name in ("precision", "recall", "f1")},
    }


def counting_by_class(counts: Floats) -> dict[str, Floats]:
    """Precision, recall and F1 [..., K] of confusion matrices [..., K, K]."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true, claimed = counts.sum(axis=-1), counts.sum(axis=-2)
    return {
        "precision": _ratio(hit, claimed),
        "recall": _ratio(hit, true),
        "f1": _ratio(2 * hit, true + claimed),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
