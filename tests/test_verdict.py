"""The verdict rule: its parts against formulas, and how often it speaks where nothing differs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fewscans.verdict import (
    joint_correlation,
    joint_intervals,
    moderated,
    paired_difference,
    simultaneous_level,
    verdict,
)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.10, -0.01, "worse"), (0.01, 0.05, "gain"), (0.001, 0.03, "gain"), (0.01, 0.02, "no gain"),
        (-0.02, 0.02, "no gain"), (0.0, 0.0, "no gain"), (-0.01, 0.03, "cannot tell"), (-0.2, 0.4, "cannot tell"),
        (0.0, 0.2, "cannot tell"), (float("nan"), 0.1, "cannot tell"),
    ],
)  # fmt: skip
def test_verdict(low: float, high: float, said: str) -> None:
    assert verdict(low, high, smallest_gain=0.03) == said


def _layout(
    reps: int,
    folds: int,
    draws: int,
    seeds: int,
    *,
    patient: float,
    draw: float = 0.0,
    seed: float = 0.0,
    free: float = 0.0,
    fold: float = 0.0,
    joint: float = 0.0,
    rng_seed: int = 0,
):
    """Differences whose variance is known: (cells, resampled) of many studies, from normal parts.

    A resample moves all trainings of a fold alike by `patient` and each alone by `joint`, as a bootstrap would.
    """
    rng = np.random.default_rng(rng_seed)
    for _ in range(reps):
        n = rng.standard_normal
        common, own = patient * n((folds, 1, 1)), joint * n((folds, draws, seeds))
        luck = (
            draw * n((folds, draws, 1))
            + seed * n((folds, 1, seeds))
            + free * n((folds, draws, seeds))
        )
        cells = common + own + luck + fold * n((folds, 1, 1))
        moves = patient * n((folds, 1, 1, 400)) + joint * n((folds, draws, seeds, 400))
        yield cells, (cells[..., None] + moves).mean(axis=0)


@pytest.mark.parametrize(
    ("folds", "draws", "seeds", "parts"),
    [
        (5, 2, 1, {"patient": 1.0, "free": 0.7}),
        (3, 3, 3, {"patient": 1.0, "draw": 0.8, "seed": 0.6, "free": 0.5}),
        (5, 1, 4, {"patient": 0.5, "free": 0.2, "joint": 0.9}),
        (4, 2, 2, {"patient": 0.7, "draw": 0.5, "seed": 0.5, "fold": 0.8}),
    ],
)
def test_variance_is_not_too_small_and_standard_errors_hold(folds, draws, seeds, parts) -> None:
    found = [
        paired_difference(float(cells.mean()), cells, resampled)
        for cells, resampled in _layout(400, folds, draws, seeds, **parts)
    ]
    truth = np.var([one.diff for one in found], ddof=1)
    assert (
        np.mean([one.se**2 for one in found]) > 0.95 * truth
    )  # excess is cut at 0, so it errs upwards
    misses = np.mean([abs(one.diff) > one.half_width(0.05) for one in found])
    assert misses <= 0.06


def test_parts_of_one_study_by_formula() -> None:
    cells = np.array(
        [[[1.0], [3.0]], [[2.0], [2.0]], [[4.0], [0.0]]]
    )  # 3 folds, 2 draws, 1 seed; fold means are equal
    rng = np.random.default_rng(0)
    moves = rng.standard_normal(1000)
    resampled = np.stack([[moves], [2 * moves]])
    found = paired_difference(2.0, cells, resampled)
    assert found.patients == pytest.approx(2 * moves.var(ddof=1))
    # within folds: squares 2 + 0 + 8 over 3 degrees of freedom; mean over 6 cells
    assert found.training == pytest.approx(10 / 3 / 6)
    assert found.excess == 0
    assert found.smallest_detectable == pytest.approx(
        2.8 * np.sqrt(found.patients + found.training)
    )
    assert found.known


@pytest.mark.parametrize(
    ("folds", "draws", "seeds", "complete", "known"),
    [
        (5, 1, 1, True, False),  # one training
        (5, 2, 1, False, True),
        (5, 1, 2, True, True),
        (1, 2, 1, False, False),  # one pretraining, whose luck is in both draws
        (1, 1, 3, False, False),  # one labelled subset, whose luck is in all seeds
        (1, 1, 3, True, True),  # ... but all labels are no subset
        (1, 2, 2, False, True),
    ],
)
def test_spread_between_trainings_must_be_seen(folds, draws, seeds, complete, known) -> None:
    rng = np.random.default_rng(0)
    cells, resampled = rng.normal(size=(folds, draws, seeds)), rng.normal(size=(draws, seeds, 50))
    assert paired_difference(0.1, cells, resampled, complete_labels=complete).known is known
    # one transductive encoder for all folds: they say nothing of its luck
    shared = paired_difference(0.1, cells, resampled, complete_labels=complete, shared_encoder=True)
    assert shared.known is (known and seeds > 1)


def test_no_training_part_is_far_below_the_others() -> None:
    rng = np.random.default_rng(0)
    steady, shaky = np.zeros((3, 2, 1)), np.array([[[0.0], [2.0]]] * 3)
    found = [
        paired_difference(0.1, cells, rng.normal(size=(2, 1, 50))) for cells in (steady, shaky)
    ]
    assert found[0].training == 0
    raised = moderated(found)
    assert raised[0].training == pytest.approx(
        found[1].training / 4
    )  # half of the mean of 0 and it
    assert raised[1] == found[1]
    assert moderated(found[:1]) == found[:1]


def test_the_same_predictions_differ_by_nothing() -> None:
    found = paired_difference(0.0, np.zeros((3, 2, 1)), np.zeros((2, 1, 100)))
    assert found.se == 0
    assert found.half_width(0.05) == 0
    assert joint_intervals(
        [found], joint_correlation(np.zeros((1, 3, 2, 1)), np.zeros((1, 100))), 0.05
    ) == [(0, 0)]


def test_simultaneous_level_between_one_interval_and_sidak() -> None:
    assert simultaneous_level(np.eye(1), 0.05) == 0.05
    assert simultaneous_level(np.ones((6, 6)), 0.05) == pytest.approx(0.05, rel=0.08)
    assert simultaneous_level(np.eye(6), 0.05) == pytest.approx(1 - 0.95 ** (1 / 6), rel=0.08)
    half = 0.5 * np.eye(6) + 0.5
    assert simultaneous_level(np.eye(6), 0.05) < simultaneous_level(half, 0.05) < 0.05
    assert simultaneous_level(half, 0.05, "a") == simultaneous_level(half, 0.05, "a")


def test_arms_that_share_a_baseline_are_correlated() -> None:
    rng = np.random.default_rng(0)
    base, arms = rng.normal(size=(1, 4000)), rng.normal(size=(3, 4000))
    found = joint_correlation(np.zeros((3, 2, 1, 1)), arms - base)
    assert found[0, 1] == pytest.approx(0.5, abs=0.05)
    cells = rng.normal(size=(3, 200, 2, 2)) - rng.normal(size=(1, 200, 2, 2))
    assert joint_correlation(cells, np.zeros((3, 10)))[0, 2] == pytest.approx(0.5, abs=0.1)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "verdict_rule.py"
    spec = importlib.util.spec_from_file_location("verdict_rule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_simulation_ranks_as_the_package_does(benchmark: ModuleType) -> None:
    benchmark.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "folds", "draws", "seeds", "arms"),
    [(150, 3, 2, 1, 1), (150, 5, 3, 3, 1), (150, 3, 2, 1, 8)],
)
def test_false_verdicts_are_rare(benchmark: ModuleType, n, folds, draws, seeds, arms) -> None:
    """The whole rule under a null with an ordinary spread between trainings; 400 studies, standard error 1 %."""
    row = benchmark.run((benchmark.Scenario(n, folds, draws, seeds, arms=arms, spread=0.04), 400))
    assert row["any_gain_or_worse"] <= 0.06
    assert row["patients_alone"] > row["any_gain_or_worse"]


@pytest.mark.slow
def test_real_gains_are_found(benchmark: ModuleType) -> None:
    row = benchmark.run((benchmark.Scenario(400, 5, 3, 3, spread=0.03, effect=0.08), 200))
    assert row["gain"] > 0.9
