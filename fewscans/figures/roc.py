"""ROC curves of out-of-fold predictions at the largest budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import grid, names, style
from fewscans.figures.inputs import Results

COLUMNS = ["dataset", "arm", "budget", "positive", "fpr", "tpr", "tpr_low", "tpr_high", "n_curves"]
GRID = np.linspace(0, 1, 101)


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """One panel per encoder: the mean curve over folds, seeds and draws; bands: the range over folds.

    Scores of different folds' models are not on one scale, so curves are averaged (vertically), never scores.
    """
    panels = grid.panels_of(results, dataset)
    budgets = results.budgets(dataset)
    if not panels:
        return style.words("No scores, so no ROC curves."), pd.DataFrame(columns=COLUMNS)
    budget, classes = budgets[-1], results.classes(dataset)
    shown = {arm for panel in panels for arm in [*panel.arms, *panel.baselines]}
    predictions = results.predictions(dataset, shown, budget)
    curves = {
        arm: curve
        for arm, part in predictions.groupby("arm")
        if (curve := mean_curve(part, results.unit))
    }
    if not curves:
        text = "No ROC curves: in no fold do the test scans hold all classes that a curve needs."
        return style.words(text), pd.DataFrame(columns=COLUMNS)

    figure, axes = grid.figure_of(panels, 1.85)
    for panel, one in zip(panels, axes, strict=True):
        one.plot([0, 1], [0, 1], color=style.FAINT, linewidth=0.8)
        lines = [(arm, dict(grid.BASELINE)) for arm in panel.baselines]
        lines += [(arm, look.protocol(results.arms[arm]["protocol"])) for arm in panel.arms]
        for arm, kind in lines:
            if arm in curves:
                mean, low, high, _ = curves[arm]
                one.plot(GRID, mean, color=kind["color"], linestyle=kind["linestyle"])
                one.fill_between(GRID, low, high, color=kind["color"], alpha=0.12, linewidth=0)
        _areas(one, results, dataset, budget, lines)
        one.set_aspect("equal")
        one.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        one.set_xticklabels(["0", "0.5", "1"])
        one.set_yticklabels(["0", "0.5", "1"])
    grid.left_and_bottom(axes, "false positive rate", "true positive rate")
    handles = grid.handles(results, panels, look, chance=False)
    for handle in handles:
        handle.set_marker("")
    style.legend_below(figure, handles)
    positive = classes[-1] if len(classes) == 2 else "each class against the rest, mean"
    return figure, _numbers(dataset, budget, positive, curves)


def _areas(axes: Axes, results: Results, dataset: str, budget: str, lines: list) -> None:
    """AUROC of the table at the lower right, in the line's colour; the text is the table's, not this curve's."""
    scores = results.scores
    at = (scores.dataset == dataset) & (scores.budget == budget) & (scores.unit == results.unit)
    known = scores[at & (scores.metric == "auroc")].set_index("arm").value
    said = [(arm, kind["color"]) for arm, kind in lines if arm in known.index]
    lines_of_text = [(names.number(known[arm]), colour) for arm, colour in reversed(said)]
    for i, (text, colour) in enumerate([*lines_of_text, ("AUROC", style.MUTED)] if said else []):
        axes.text(0.99, 0.03 + 0.11 * i, text, color=colour, ha="right", va="bottom", fontsize=style.SMALL_PT,
                  transform=axes.transAxes)  # fmt: skip


def mean_curve(
    part: pd.DataFrame, unit: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """True positive rate on `GRID`: mean, lowest and highest over folds, and the number of curves; None without any.

    With one fold (an official split) the range is over seeds and draws. With more than two classes a curve is the
    mean of one-vs-rest curves.
    """
    folds: dict[str, list[np.ndarray]] = {}
    for (fold, _, _), training in part.groupby(["fold", "seed", "draw"]):
        target, prob = by_unit(training, unit)
        curve = _macro(target, prob)
        if curve is not None:
            folds.setdefault(str(fold), []).append(curve)
    if not folds:
        return None
    n = sum(len(curves) for curves in folds.values())
    means = np.array([np.mean(curves, axis=0) for curves in folds.values()])
    spread = means if len(means) > 1 else np.array(next(iter(folds.values())))
    return means.mean(axis=0), spread.min(axis=0), spread.max(axis=0), n


def by_unit(part: pd.DataFrame, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets [n] and probabilities [n, K] per scan, or per patient with the mean over its scans.

    A patient whose scans have two labels counts once per label, as in the scores.
    """
    prob = np.stack(part.prob.to_numpy())
    target = part.target.to_numpy()
    if not unit.startswith("patient"):
        return target, prob
    keys, code = np.unique(
        part.patient.to_numpy().astype(str) + "\0" + target.astype(str), return_inverse=True
    )
    count = np.bincount(code, minlength=len(keys))
    mean = np.stack(
        [np.bincount(code, weights=column, minlength=len(keys)) / count for column in prob.T],
        axis=1,
    )
    first = np.zeros(len(keys), dtype=target.dtype)
    first[code] = target
    return first, mean


def _macro(target: np.ndarray, prob: np.ndarray) -> np.ndarray | None:
    positives = [1] if prob.shape[1] == 2 else range(prob.shape[1])
    curves = [
        _curve(target == k, prob[:, k]) for k in positives if 0 < (target == k).sum() < len(target)
    ]
    return np.mean(curves, axis=0) if curves else None


def _curve(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """True positive rate at the false positive rates of `GRID`; ties are one slanted step."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]
    tpr = np.r_[0, hits[last] / hits[-1]]
    fpr = np.r_[0, (last + 1 - hits[last]) / (len(score) - hits[-1])]
    # Equal false positive rates are upright steps: `interp` takes the highest point at a step, and between steps the
    # segment that joins them, so no area is won or lost.
    return np.interp(GRID, fpr, tpr)


def _numbers(dataset: str, budget: str, positive: str, curves: dict) -> pd.DataFrame:
    def rows() -> Iterator[pd.DataFrame]:
        for arm, (mean, low, high, n) in curves.items():
            yield pd.DataFrame(
                {"dataset": dataset, "arm": arm, "budget": budget, "positive": positive, "fpr": GRID, "tpr": mean,
                 "tpr_low": low, "tpr_high": high, "n_curves": n}
            )  # fmt: skip

    return pd.concat(rows(), ignore_index=True)[COLUMNS]
