"""Scores of one arm at one budget: points, resamples, intervals, and what contrasts need.

Shapes: K folds, D draws, S seeds, R resamples, P positive classes, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewscans import delong
from fewscans.aggregate.units import Block, FoldUnits, Trainings
from fewscans.bootstrap import percentile_interval, wilson_interval
from fewscans.metrics import (
    COUNTING,
    RANKING,
    counting_by_class,
    counting_points,
    counting_values,
    positives,
    ranking_points,
    weighted_confusion,
    weighted_ranking,
)

# Percentile intervals of an AUROC are too narrow near 1 where patients are few (DESIGN: scores).
FEW_PATIENTS, HIGH_AUROC = 100, 0.9

Floats = NDArray[np.float64]


@dataclass
class Scored:
    """Everything known of one arm at one budget."""

    trainings: Trainings
    point: dict[str, Floats]
    """Metric -> [D, S] (macro)."""
    cells: dict[str, Floats]
    """Metric -> [K, D, S]; for counting metrics the linear part."""
    resampled: dict[str, Floats]
    """Metric -> [D, S, R]."""
    class_point: dict[str, Floats]
    """Metric -> [P or C] by class, trainings averaged."""
    class_resampled: dict[str, Floats]
    """Metric -> [P or C, R]."""
    constant: bool
    """Whether every training gives each patient of a fold the same probabilities."""
    flags: set[str]


def score(block: Block, trainings: Trainings) -> Scored:
    """Points and resamples of all metrics."""
    folds = [block.folds[i] for i in trainings.folds]
    flags = set(trainings.flags)
    same = [_is_constant(p) for by_draw in trainings.prob for by_seed in by_draw for p in by_seed]
    if any(same):
        flags.add("constant-predictor")
    scored = Scored(trainings, {}, {}, {}, {}, {}, all(same), flags)
    _score_ranking(scored, folds, len(block.classes))
    _score_counting(scored, folds, len(block.classes))
    return scored


def _is_constant(prob: Floats) -> bool:
    return bool((prob == prob[:1]).all())


def _score_ranking(scored: Scored, folds: list[FoldUnits], n_classes: int) -> None:
    """Per fold, then the mean over the folds that have every class."""
    prob = scored.trainings.prob
    draws, seeds = len(scored.trainings.draws), len(scored.trainings.seeds)
    labels = positives(n_classes)
    whole = [k for k, fold in enumerate(folds) if len(set(fold.target.tolist())) == n_classes]
    resamples = folds[0].weights.shape[1]
    cells = {m: np.full((len(whole), draws, seeds, len(labels)), np.nan) for m in RANKING}
    resampled = {m: np.zeros((draws, seeds, len(labels), resamples)) for m in RANKING}
    for i, k in enumerate(whole):
        fold = folds[k]
        for d, s in np.ndindex(draws, seeds):
            p = prob[k][d][s]
            for metric, values in ranking_points(fold.target, p).items():
                cells[metric][i, d, s] = values
            for c, label in enumerate(labels):
                found = weighted_ranking(fold.target == label, p[:, label], fold.weights)
                for metric, values in zip(RANKING, found, strict=True):
                    resampled[metric][d, s, c] += values / len(whole)
    for metric in RANKING:
        if not whole:
            cells[metric] = np.full((1, draws, seeds, len(labels)), np.nan)
            resampled[metric][:] = np.nan
        by_class = cells[metric].mean(axis=0)
        scored.point[metric] = by_class.mean(axis=-1)
        scored.cells[metric] = cells[metric].mean(axis=-1)
        scored.resampled[metric] = resampled[metric].mean(axis=2)
        if n_classes > 2:
            scored.class_point[metric] = by_class.mean(axis=(0, 1))
            scored.class_resampled[metric] = resampled[metric].mean(axis=(0, 1))


def _score_counting(scored: Scored, folds: list[FoldUnits], n_classes: int) -> None:
    """From confusion matrices that are summed over folds."""
    prob = scored.trainings.prob
    draws, seeds = len(scored.trainings.draws), len(scored.trainings.seeds)
    resamples = folds[0].weights.shape[1]
    counts = np.zeros((len(folds), draws, seeds, n_classes, n_classes))
    pooled = np.zeros((draws * seeds, resamples, n_classes, n_classes))
    predicted: list[NDArray[np.int64]] = []
    for k, fold in enumerate(folds):
        chosen = np.stack([p.argmax(axis=1) for by_seed in prob[k] for p in by_seed])
        predicted.append(chosen)
        once = np.ones((len(fold.target), 1))
        counts[k] = weighted_confusion(fold.target, chosen, n_classes, once).reshape(
            counts.shape[1:]
        )
        pooled += weighted_confusion(fold.target, chosen, n_classes, fold.weights)
    target = np.concatenate([fold.target for fold in folds])
    every = np.concatenate(predicted, axis=1)
    points = [counting_points(target, every[j], n_classes) for j in range(draws * seeds)]
    values, by_class = counting_values(pooled), counting_by_class(pooled)
    linear = _linear_parts(counts)
    for metric in COUNTING:
        scored.point[metric] = np.array([p[metric] for p in points]).reshape(draws, seeds)
        scored.cells[metric] = linear[metric]
        scored.resampled[metric] = values[metric].reshape(draws, seeds, resamples)
    for metric, found in counting_by_class(counts.sum(axis=0)).items():
        scored.class_point[metric] = found.mean(axis=(0, 1))
        scored.class_resampled[metric] = by_class[metric].mean(axis=0).T


def _linear_parts(counts: Floats) -> dict[str, Floats]:
    """[K, D, S] share of each fold and training in a pooled metric: its gradient along their confusion matrices.

    A pooled metric is no mean over folds, but near its centre it moves as one; so the spread between trainings can be
    taken within folds, where it belongs.
    """
    folds = len(counts)
    centre = counts.mean(axis=(0, 1, 2)) * folds
    step = 1e-5 * centre.sum()
    found: dict[str, Floats] = {}
    size = counts.shape[-1]
    moves = np.eye(size * size).reshape(size * size, size, size) * step
    up, down = counting_values(centre + moves), counting_values(np.maximum(centre - moves, 0))
    # Where a cell is empty the step down goes nowhere: the difference is then one-sided.
    width = step + np.minimum(centre.reshape(-1), step)
    middle = counting_values(centre)
    for metric in COUNTING:
        gradient = ((up[metric] - down[metric]) / width).reshape(size, size)
        found[metric] = middle[metric] + ((counts * folds - centre) * gradient).sum(axis=(-2, -1))
    return found


def score_rows(block: Block, scored: Scored, confidence: float) -> list[dict[str, Any]]:
    """A row for each metric, macro (`class` "") and by class."""
    rows = []
    flags = " ".join(sorted(scored.flags | block.flags))
    few = min(
        sum(len(set(fold.group[fold.target == c].tolist())) for fold in block.folds)
        for c in range(len(block.classes))
    )
    by_class = [
        (metric, label)
        for metric in scored.class_point
        for label in range(len(scored.class_point[metric]))
    ]
    for metric, label in [*((metric, None) for metric in scored.point), *by_class]:
        if label is None:
            value, values = (
                float(scored.point[metric].mean()),
                scored.resampled[metric].mean(axis=(0, 1)),
            )
        else:
            value, values = (
                float(scored.class_point[metric][label]),
                scored.class_resampled[metric][label],
            )
        low, high, method = _interval(
            block, scored, metric, label, value, values, confidence, max(1, few)
        )
        point = scored.point[metric]
        rows.append({
            "metric": metric, "class": "" if label is None else block.classes[label], "value": value, "low": low,
            "high": high, "sd_draws": _sd(point.mean(axis=1)) if label is None else None,
            "sd_seeds": _sd(point.mean(axis=0)) if label is None else None, "method": method,
            "n_groups": block.n_groups, "flags": flags,
        })  # fmt: skip
    return rows


def _sd(values: Floats) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _interval(
    block: Block,
    scored: Scored,
    metric: str,
    label: int | None,
    value: float,
    values: Floats,
    confidence: float,
    few: int,
) -> tuple[float | None, float | None, str]:
    """(low, high, how it was made)."""
    if not np.isfinite(value):
        return None, None, "none"
    if scored.constant:
        # Nothing to resample: a constant ranks nobody, and its hits are the classes' shares.
        return value, value, "constant"
    still = float(np.ptp(values)) < 1e-12
    if metric == "auroc" and (still or (block.n_groups < FEW_PATIENTS and value > HIGH_AUROC)):
        return _edge_interval(block, scored, label, value, confidence)
    if still and value in (0.0, 1.0):
        return *wilson_interval(value, few, confidence), "wilson"
    return *percentile_interval(values, confidence), "bootstrap"


def _edge_interval(
    block: Block, scored: Scored, label: int | None, value: float, confidence: float
) -> tuple[float, float, str]:
    """DeLong per fold, combined, on the logit scale; Newcombe where every pair is in order (DeLong sees no spread)."""
    n_classes = len(block.classes)
    labels = positives(n_classes) if label is None else [positives(n_classes)[label]]
    variance, n_positive, n_negative, used = 0.0, 0, 0, 0
    for k, i in enumerate(scored.trainings.folds):
        fold = block.folds[i]
        if len(set(fold.target.tolist())) < n_classes:
            continue
        cells = [p for by_seed in scored.trainings.prob[k] for p in by_seed]
        parts = [
            delong.influence(fold.target == c, p[:, c], fold.group, len(fold.strata))
            for p in cells
            for c in labels
        ]
        variance += delong.influence_variance(np.mean(parts, axis=0), fold.strata)
        used += 1
        rest = labels[int(np.argmin([(fold.target == c).sum() for c in labels]))]
        n_positive += int((fold.target == rest).sum())
        n_negative += int((fold.target != rest).sum())
    if variance > 0 and 0 < value < 1:
        return *delong.logit_interval(value, variance / used**2, confidence), "delong-logit"
    return *delong.newcombe_interval(value, n_positive, n_negative, confidence), "newcombe"
