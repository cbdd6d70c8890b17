"""Resamples: what they keep, whom they resample, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm

from fewscans import delong
from fewscans.bootstrap import percentile_interval, resample_weights, wilson_interval
from fewscans.metrics import weighted_ranking


def test_strata_keep_their_weight_in_every_resample() -> None:
    strata = ["0"] * 7 + ["1"] * 4 + ["0+1"]
    weights = resample_weights(strata, 500, 0, "a")
    np.testing.assert_allclose(weights[:7].sum(axis=0), 7)
    np.testing.assert_allclose(weights[7:11].sum(axis=0), 4)
    np.testing.assert_array_equal(weights[11], 1)
    assert (weights[:7] == 0).any()


def test_resamples_follow_from_their_key_alone() -> None:
    one = resample_weights(["0", "0", "0", "1", "1"], 50, 3, "mine", "0")
    np.testing.assert_array_equal(
        one, resample_weights(["0", "0", "0", "1", "1"], 50, 3, "mine", "0")
    )
    # another stratum beside it, or another order of strata, moves no group's draws
    np.testing.assert_array_equal(
        one[:3], resample_weights(["1", "0", "0", "0"], 50, 3, "mine", "0")[1:]
    )
    assert (one != resample_weights(["0", "0", "0", "1", "1"], 50, 4, "mine", "0")).any()


@pytest.mark.parametrize("m", [3, 5, 20])
def test_variance_of_a_mean_is_not_too_small_in_small_strata(m: int) -> None:
    values = np.random.default_rng(m).normal(size=m)
    means = values @ resample_weights(["x"] * m, 40_000, m) / m
    assert means.var() == pytest.approx(
        values.var(ddof=1) / m, rel=0.03
    )  # and not (m - 1) / m of it


def test_percentiles_are_scipys_where_groups_are_many() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    means = values @ resample_weights(["x"] * 400, 8000, 0) / 400
    theirs = bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(1)
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    ours = percentile_interval(means, 0.95)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.05 * width)


@pytest.mark.parametrize(("hits", "n"), [(0, 9), (9, 9), (13, 40)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n, 0.95) == pytest.approx((theirs.low, theirs.high))


def _study(n: int, auroc: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    positive = np.arange(n) % 2 == 1
    return positive, rng.normal(size=n) + np.sqrt(2) * norm.ppf(auroc) * positive


@pytest.mark.parametrize(("n", "auroc"), [(50, 0.75), (150, 0.85)])
def test_percentile_intervals_hold_the_truth(n: int, auroc: float) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for rep in range(400):
        positive, score = _study(n, auroc, rng)
        weights = resample_weights([str(p) for p in positive], 300, rep)
        low, high = percentile_interval(weighted_ranking(positive, score, weights)[0], 0.95)
        hits += low <= auroc <= high
    assert 0.91 <= hits / 400 <= 0.985


def test_interval_near_one_holds_the_truth_with_few_patients() -> None:
    rng = np.random.default_rng(3)
    hits = {"edge": 0, "percentile": 0}
    for rep in range(400):
        positive, score = _study(50, 0.96, rng)
        strata = np.where(positive, "1", "0").astype(object)
        v10, _ = delong.placements(positive, score)
        variance = delong.influence_variance(
            delong.influence(positive, score, np.arange(50), 50), strata
        )
        value = float(v10.mean())
        edge = (
            delong.logit_interval(value, variance, 0.95)
            if variance > 0
            else delong.newcombe_interval(value, 25, 25, 0.95)
        )
        weights = resample_weights(strata.tolist(), 300, rep)
        plain = percentile_interval(weighted_ranking(positive, score, weights)[0], 0.95)
        hits["edge"] += edge[0] <= 0.96 <= edge[1]
        hits["percentile"] += plain[0] <= 0.96 <= plain[1]
    assert 0.93 <= hits["edge"] / 400 <= 0.99
    assert hits["percentile"] < hits["edge"]
