"""Scores on the labelled budget's own inner folds: the only ones that may name a best arm."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fewscans.aggregate.inputs import Dataset
from fewscans.metrics import COUNTING, counting_points, ranking_points

CELL = ["arm", "budget", "draw", "seed", "fold"]


def validation_scores(data: Dataset, metric: str, unit: str) -> dict[tuple[str, str], float]:
    """(arm, budget) -> mean score of its inner out-of-fold predictions over folds, draws and seeds.

    Inner folds are too small to rank in (two patients, at times), so a cell's inner folds are scored together, ranking
    metrics too. Only cells that every arm of a budget has are counted, for arms that have any: comparing scores of
    different labelled sets would favour who drew the easy ones.
    """
    there = (data.rows["role"] == "val").to_numpy()
    rows, prob = data.rows[there], data.prob[there]
    if rows.empty:
        return {}
    found: dict[tuple[str, str], dict[tuple[int, int, str], float]] = {}
    for key, index in rows.reset_index(drop=True).groupby(CELL, observed=True).indices.items():
        arm, budget, draw, seed, fold = key
        value = _score(rows.iloc[index], prob[index], metric, unit)
        if np.isfinite(value):
            found.setdefault((str(arm), str(budget)), {})[int(draw), int(seed), str(fold)] = value
    means = {}
    for budget in {key[1] for key in found}:
        arms = {key: cells for key, cells in found.items() if key[1] == budget}
        shared = set.intersection(*({(d, f) for d, _, f in cells} for cells in arms.values()))
        for key, cells in arms.items():
            values = [value for (d, _, f), value in sorted(cells.items()) if (d, f) in shared]
            if values:
                means[key] = float(np.mean(values))
    return means


def _score(rows: pd.DataFrame, prob: np.ndarray, metric: str, unit: str) -> float:
    target = rows["target"].to_numpy(dtype=np.int64)
    if unit.startswith("patient"):
        k = prob.shape[1]
        # a patient with scans of two classes is a unit in each, as among the tested
        units, codes = np.unique(
            rows["patient"].cat.codes.to_numpy(np.int64) * k + target, return_inverse=True
        )
        total = np.zeros((len(units), k))
        np.add.at(total, codes, prob)
        prob, target = total / np.bincount(codes)[:, None], units % k
    if metric in COUNTING:
        return counting_points(target, prob.argmax(axis=1), prob.shape[1])[metric]
    return float(ranking_points(target, prob, [metric])[metric].mean())


def best_arms(scores: dict[tuple[str, str], float], arms: list[str]) -> set[tuple[str, str]]:
    """(arm, budget) of the best arm at each budget; nobody where fewer than two have scores. Ties: the earlier arm."""
    best = set()
    for budget in sorted({key[1] for key in scores}):
        ranked = [arm for arm in arms if (arm, budget) in scores]
        if len(ranked) > 1:
            best.add(
                (
                    max(ranked, key=lambda arm: (round(scores[arm, budget], 9), -arms.index(arm))),
                    budget,
                )
            )
    return best
