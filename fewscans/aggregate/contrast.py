"""Paired differences of each arm from its baseline at one budget, simultaneous over the arms, with verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewscans.aggregate.scoring import Scored
from fewscans.metrics import METRICS
from fewscans.verdict import joint_correlation, joint_intervals, moderated, paired_difference, verdict

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
    scored: Mapping[str, Scored], baselines: Mapping[str, str | None], budget: str, *, smallest_gain: float,
    confidence: float, key: tuple[str | int, ...],
) -> list[dict[str, Any]]:
    """A row per arm with a baseline and metric.

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
        differences = moderated([
            paired_difference(
                pair.point[metric], pair.cells[metric], pair.resampled[metric], complete_labels=budget == "all"
            )
            for pair in shown
        ])  # fmt: skip
        correlation = _correlation(shown, metric)
        intervals = joint_intervals(differences, correlation, 1 - confidence, *key, budget, metric)
        for pair, found, (low, high) in zip(shown, differences, intervals, strict=True):
            flags = set(pair.flags) if found.known else {*pair.flags, "training-variance-unknown"}
            rows.append({
                "arm": pair.arm, "baseline_arm": pair.baseline, "budget": budget, "metric": metric, "diff": found.diff,
                "low": low, "high": high, "se": found.se, "smallest_detectable": found.smallest_detectable,
                "verdict": verdict(low, high, smallest_gain) if found.known else "cannot tell",
                "method": "patients and trainings" if found.known else "patients alone",
                "flags": " ".join(sorted(flags)),
            })  # fmt: skip
    return rows


def _pair(arm: str, base: str, a: Scored, b: Scored) -> Pair:
    """Differences training by training; one that knows no seed or draw (majority) stands for all of the other's."""
    flags: set[str] = set()
    picks = []
    for name in ("draws", "seeds"):
        of_a, of_b = getattr(a.trainings, name), getattr(b.trainings, name)
        if of_a != of_b and min(len(of_a), len(of_b)) > 1:
            flags.add("unpaired-trainings")
        picks.append(_matching(of_a, of_b))
    if a.trainings.folds != b.trainings.folds:
        raise ValueError(f"{arm} and {base} were tested on different folds")
    cells, resampled, point = {}, {}, {}
    for metric in METRICS:
        one, two = (_pick(s.point[metric], *picks, side) for side, s in enumerate((a, b)))
        point[metric] = float((one - two).mean())
        one, two = (_pick(s.resampled[metric], *picks, side) for side, s in enumerate((a, b)))
        resampled[metric] = one - two
        one, two = (np.moveaxis(s.cells[metric], 0, -1) for s in (a, b))
        cells[metric] = np.moveaxis(_pick(one, *picks, 0) - _pick(two, *picks, 1), -1, 0)
    return Pair(arm, base, cells, resampled, point, flags)


def _matching(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """Positions in `a` and `b` of what is to be paired; a lone one is paired with each of the other's."""
    if len(a) == 1 or len(b) == 1:
        n = max(len(a), len(b))
        return (list(range(n)) if len(a) > 1 else [0] * n), (list(range(n)) if len(b) > 1 else [0] * n)
    both = [x for x in a if x in b]
    return [a.index(x) for x in both], [b.index(x) for x in both]


def _pick(values: Floats, draws: tuple[list[int], list[int]], seeds: tuple[list[int], list[int]], side: int) -> Floats:
    return values[np.ix_(draws[side], seeds[side])]


def _correlation(pairs: list[Pair], metric: str) -> Floats:
    """Correlation of the arms' differences; of patients alone where arms have different trainings."""
    resampled = np.stack([pair.resampled[metric].mean(axis=(0, 1)) for pair in pairs])
    shapes = {pair.cells[metric].shape for pair in pairs}
    if len(shapes) == 1:
        cells = np.stack([pair.cells[metric] for pair in pairs])
    else:
        cells = np.zeros((len(pairs), 1, 1, 1))
    return joint_correlation(cells, resampled)
