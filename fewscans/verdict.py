"""Is an arm better than its baseline? Differences whose intervals hold patients and training, and what they say.

The layout is that of a multi-reader multi-case study, with a training (draw x seed) in place of a reader: every
training of a fold is tested on the same patients (Obuchowski and Rockette 1995). With D[f, d, s] the paired
difference of one training,

    Var(mean D) = patients + training + excess
    patients    covariance, over resamples of patients, between trainings that share neither draw nor seed
    training    two-way analysis of variance of D over draws and seeds within folds; it holds what patients and
                training do together, so `patients` must not (as in Hillis 2007)
    excess      what folds, or seeds across folds, spread beyond the two; at least 0

with Satterthwaite's degrees of freedom; among several arms no training part is taken below half of their mean.
docs/notes/0003-verdicts.md says why, benchmarks/verdict_rule.py what the rule does where nothing differs.

Shapes: K folds, D draws, S seeds, R resamples, A arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from fewscans.keyed import key_of

Floats = NDArray[np.float64]

# 1.96 + 0.84: the difference that a two-sided test at 5 % finds with 80 % probability, in standard errors.
DETECTABLE = 2.8
_LARGE = 1e6  # degrees of freedom that are as good as infinite


@dataclass(frozen=True)
class Difference:
    """A paired difference, and the parts of its variance."""

    diff: float
    patients: float
    training: float
    excess: float
    df: float
    """Degrees of freedom of the sum of the three."""
    df_training: float
    """Of `training` alone."""
    alone: bool
    """One fold and one factor: nothing checks the training part, so the parts' widths add (no shared t)."""
    known: bool
    """Whether the trainings that there are can show the spread between trainings."""

    @property
    def se(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.patients + self.training + self.excess))

    @property
    def smallest_detectable(self) -> float:
        """Smallest difference that these data would have shown four times in five."""
        return DETECTABLE * self.se

    def half_width(self, alpha: float) -> float:
        """Half of the interval at level 1 - `alpha`."""
        if self.alone:
            parts = norm.isf(alpha / 2) ** 2 * self.patients
            parts += t.isf(alpha / 2, self.df_training) ** 2 * self.training
            return float(np.sqrt(parts))
        return float(t.isf(alpha / 2, self.df)) * self.se


def paired_difference(
    diff: float,
    cells: Floats,
    resampled: Floats,
    *,
    complete_labels: bool = False,
    shared_encoder: bool = False,
) -> Difference:
    """The difference with its variance.

    Parameters
    ----------
    diff
        Its value.
    cells
        [K, D, S] difference in each fold of each training; for a metric that is pooled over folds its linear part.
    resampled
        [D, S, R] difference of each training in each resample of the patients, folds joined.
    complete_labels
        All labels were used, so there is but one draw and draws add no variance.
    shared_encoder
        One pretraining serves all folds (transductive), so folds say nothing of its luck.
    """
    folds, draws, seeds = cells.shape
    trainings = draws * seeds
    if trainings == 1:
        patients = float(resampled.reshape(-1).var(ddof=1))
        return Difference(diff, patients, 0.0, 0.0, _LARGE, _LARGE, alone=False, known=False)
    patients = max(0.0, _between_trainings(resampled))
    training, uncertainty = _two_way(cells)
    excess, df_excess = _excess(cells, patients + training)
    total = patients + training + excess
    df = _satterthwaite(total, uncertainty + excess**2 / df_excess)
    one_factor = draws == 1 or seeds == 1
    # One pretraining, one fold: its luck is in every draw. One labelled subset, one fold: its luck is in every seed.
    blind = seeds == 1 and (folds == 1 or shared_encoder)
    blind |= draws == 1 and folds == 1 and not complete_labels
    return Difference(
        diff,
        patients,
        training,
        excess,
        df,
        _satterthwaite(training, uncertainty),
        alone=folds == 1 and one_factor,
        known=not blind,
    )


def _between_trainings(resampled: Floats) -> float:
    """Mean covariance of two trainings over resamples: what patients do to all trainings alike."""
    draws, seeds, resamples = resampled.shape
    flat = resampled.reshape(draws * seeds, resamples)
    flat = flat - flat.mean(axis=1, keepdims=True)
    covariance = flat @ flat.T / (resamples - 1)
    draw, seed = np.divmod(np.arange(draws * seeds), seeds)
    apart = np.ones_like(covariance, dtype=bool)
    for factor, levels in ((draw, draws), (seed, seeds)):
        if levels > 1:
            apart &= factor[:, None] != factor[None]
    return float(covariance[apart].mean())


def _two_way(cells: Floats) -> tuple[float, float]:
    """Variance that draws and seeds give to the mean of `cells`, and sum of (mean square)^2 / df for Satterthwaite.

    Draws and seeds are crossed (a seed's encoder meets every draw), so the cells of a fold are no independent
    replicates: Var = (MS_draw + MS_seed - MS_rest) / (D S), and at least what either says alone.
    """
    folds, draws, seeds = cells.shape
    centre = cells.mean(axis=(1, 2), keepdims=True)
    by_draw = cells.mean(axis=2, keepdims=True) - centre
    by_seed = cells.mean(axis=1, keepdims=True) - centre
    rest = cells - centre - by_draw - by_seed
    # (sum of squares, degrees of freedom); a factor with one level has neither
    parts = [
        (seeds * float((by_draw**2).sum()), folds * (draws - 1)),
        (draws * float((by_seed**2).sum()), folds * (seeds - 1)),
        (float((rest**2).sum()), folds * (draws - 1) * (seeds - 1)),
    ]
    draw, seed, left = (squares / df if df else 0.0 for squares, df in parts)
    variance = max(draw + seed - left, draw, seed) / cells.size
    uncertainty = sum(
        ms**2 / df for ms, (_, df) in zip((draw, seed, left), parts, strict=True) if df
    )
    return variance, uncertainty / cells.size**2


def _excess(cells: Floats, expected: float) -> tuple[float, int]:
    """What folds, or seeds over all folds, spread beyond `expected`, and its degrees of freedom.

    Folds: luck of a fold's training patients, or of its only pretraining. Seeds: luck that a seed has in every fold,
    as an untrained encoder's has.
    """
    folds, _, seeds = cells.shape
    found = [(0.0, 1)]
    if folds > 1:
        found.append((float(cells.mean(axis=(1, 2)).var(ddof=1)) / folds - expected, folds - 1))
        if seeds > 1:
            by_seed = cells.mean(axis=1)
            across = float(by_seed.mean(axis=0).var(ddof=1)) / seeds
            within = float(by_seed.var(axis=1, ddof=1).mean()) / (seeds * folds)
            found.append((across - within, seeds - 1))
    return max(found)


def _satterthwaite(variance: float, uncertainty: float) -> float:
    if uncertainty <= 0:
        return _LARGE
    return float(np.clip(variance**2 / uncertainty, 1.0, _LARGE))


def moderated(differences: Sequence[Difference]) -> list[Difference]:
    """The differences, no training part below half of their mean.

    From few trainings that part is now and then far too small by luck, and among many arms the one where it is would
    be the one that is called a gain. A lone difference stays as it is.
    """
    least = sum(one.training for one in differences) / (2 * max(1, len(differences)))
    return [replace(one, training=max(one.training, least)) for one in differences]


def joint_correlation(cells: Floats, resampled: Floats) -> Floats:
    """[A, A] correlation of the differences of several arms, from patients and trainings together.

    Parameters
    ----------
    cells
        [A, K, D, S].
    resampled
        [A, R] differences, trainings averaged.
    """
    arms, folds = cells.shape[:2]
    inner = cells.reshape(arms, folds, -1)
    covariance = np.atleast_2d(np.cov(resampled))
    per_fold = inner.shape[2]
    if per_fold > 1:
        apart = (inner - inner.mean(axis=2, keepdims=True)).reshape(arms, -1)
        covariance = covariance + apart @ apart.T / (folds * (per_fold - 1)) / (folds * per_fold)
    scale = np.sqrt(np.diag(covariance))
    correlation = np.eye(arms)
    real = np.flatnonzero(scale > 0)
    correlation[np.ix_(real, real)] = covariance[np.ix_(real, real)] / np.outer(
        scale[real], scale[real]
    )
    return correlation


def simultaneous_level(
    correlation: Floats, alpha: float, *key: str | int, samples: int = 20_000
) -> float:
    """Level for each of A intervals so that all hold together with probability 1 - `alpha` (max-T).

    The largest of A correlated normal deviates is drawn `samples` times; its quantile is a level for a single
    interval, at which each arm then takes its own degrees of freedom.
    """
    arms = len(correlation)
    if arms == 1:
        return alpha
    rng = np.random.Generator(np.random.Philox(key=key_of("max-t", *key)))
    root = np.linalg.cholesky(0.999999 * correlation + 1e-6 * np.eye(arms))
    largest = np.abs(rng.standard_normal((samples, arms)) @ root.T).max(axis=1)
    return min(alpha, 2 * float(norm.sf(np.quantile(largest, 1 - alpha))))


def verdict(low: float, high: float, smallest_gain: float) -> str:
    """`worse`, `gain`, `no gain` or `cannot tell` from the interval of a difference (DESIGN: verdicts)."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "cannot tell"
    if high < 0:
        return "worse"
    if low > 0 and high >= smallest_gain:
        return "gain"
    return "no gain" if high < smallest_gain else "cannot tell"


def joint_intervals(
    differences: Sequence[Difference], correlation: Floats, alpha: float, *key: str | int
) -> list[tuple[float, float]]:
    """Simultaneous (low, high) of several differences of metrics in [0, 1], so within [-1, 1]."""
    level = simultaneous_level(correlation, alpha, *key)
    ends = [(d.diff - d.half_width(level), d.diff + d.half_width(level)) for d in differences]
    return [(float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1))) for low, high in ends]
