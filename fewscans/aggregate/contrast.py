"""Paired differences of each arm from its baseline at one budget, simultaneous over the arms, with verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewscans.aggregate.scoring import Scored
from fewscans.metrics import METRICS
from fewscans.verdict import (
    joint_correlation,
    joint_intervals,
    moderated,
    paired_difference,
    verdict,
)

Floats = NDArray[np.float64]


@dataclass
class Pair:
    """One arm and its baseline, on the trainings that both have."""

    arm: str
    baseline: str
    cells: dict[str, Floats]
    """Metric -> [K, D, S] differences."""
    resampled: dict[str, Floats]
    """Metric -> [D, S, R]."""
    point: dict[str, float]
    flags: set[str]


def contrast_rows(
    scored: Mapping[str, Scored],
    baselines: Mapping[str, str | None],
    budget: str,
    *,
    smallest_gain: float,
    confidence: float,
    key: tuple[str | int, ...],
    transductive: Collection[str] = (),
) -> list[dict[str, Any]]:
    """A row per arm with a baseline and metric.

    `low` to `high` hold for all arms together, `low_alone` to `high_alone` for an arm by itself.

    Parameters
    ----------
    scored
        Arm -> its scores at this budget, in the order of the table.
    baselines
        Arm -> the arm that it is compared with, or None.
    budget
        Name of the budget; at `all` one draw is all there is.
    smallest_gain
        Smallest difference of interest.
    confidence
        Level at which the intervals of all arms hold together.
    key
        What the random numbers follow from.
    transductive
        Arms whose one encoder serves all folds.
    """
    pairs = [
        _pair(arm, base, scored[arm], scored[base])
        for arm in scored
        if (base := baselines.get(arm)) is not None and base in scored
    ]
    rows = []
    for metric in METRICS:
        shown = [pair for pair in pairs if np.isfinite(pair.point[metric])]
        if not shown:
            continue
        found = [
            paired_difference(
                pair.point[metric],
                pair.cells[metric],
                pair.resampled[metric],
                complete_labels=budget == "all",
                shared_encoder=bool({pair.arm, pair.baseline} & set(transductive)),
            )
            for pair in shown
        ]
        differences = moderated(found)
        correlation = _correlation(shown, metric)
        intervals = joint_intervals(differences, correlation, 1 - confidence, *key, budget, metric)
        for pair, difference, (low, high) in zip(shown, differences, intervals, strict=True):
            alone = difference.half_width(1 - confidence)
            flags = pair.flags | (set() if difference.known else {"training-variance-unknown"})
            rows.append({
                "arm": pair.arm, "baseline_arm": pair.baseline, "budget": budget, "metric": metric,
                "diff": difference.diff, "low": low, "high": high,
                "low_alone": max(-1.0, difference.diff - alone),
                "high_alone": min(1.0, difference.diff + alone), "se": difference.se,
                "smallest_detectable": difference.smallest_detectable,
                "verdict": verdict(low, high, smallest_gain) if difference.known else "cannot tell",
                "method": "patients and trainings" if difference.known else "patients alone",
                "flags": " ".join(sorted(flags)),
            })  # fmt: skip
    return rows


def _pair(arm: str, base: str, a: Scored, b: Scored) -> Pair:
    """Differences training by training; an arm with a lone seed (majority) stands for all of the other's."""
    flags: set[str] = set()
    draws, seeds = (a.trainings.draws, b.trainings.draws), (a.trainings.seeds, b.trainings.seeds)
    for of_a, of_b in (draws, seeds):
        if of_a != of_b and min(len(of_a), len(of_b)) > 1:
            flags.add("unpaired-trainings")
    from_a, from_b = (
        np.ix_(d, s) for d, s in zip(_matching(*draws), _matching(*seeds), strict=True)
    )
    if a.trainings.folds != b.trainings.folds:
        raise ValueError(f"{arm} and {base} were tested on different folds")
    cells, resampled, point = {}, {}, {}
    for metric in METRICS:
        point[metric] = float((a.point[metric][from_a] - b.point[metric][from_b]).mean())
        resampled[metric] = a.resampled[metric][from_a] - b.resampled[metric][from_b]
        # training by training in each fold; folds stand first
        one, two = (np.moveaxis(scored.cells[metric], 0, -1) for scored in (a, b))
        cells[metric] = np.moveaxis(one[from_a] - two[from_b], -1, 0)
    return Pair(arm, base, cells, resampled, point, flags)


def _matching(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """Positions in `a` and `b` of what is to be paired; a lone one is paired with each of the other's."""
    if len(a) == 1:
        return [0] * len(b), list(range(len(b)))
    if len(b) == 1:
        return list(range(len(a))), [0] * len(a)
    both = [x for x in a if x in b]
    return [a.index(x) for x in both], [b.index(x) for x in both]


def _correlation(pairs: list[Pair], metric: str) -> Floats:
    """Correlation of the arms' differences; of patients alone where arms have different trainings."""
    resampled = np.stack([pair.resampled[metric].mean(axis=(0, 1)) for pair in pairs])
    if len({pair.cells[metric].shape for pair in pairs}) > 1:
        return joint_correlation(np.zeros((len(pairs), 1, 1, 1)), resampled)
    return joint_correlation(np.stack([pair.cells[metric] for pair in pairs]), resampled)
