"""How often the verdict rule speaks where nothing differs, and where something does.

python benchmarks/verdict_rule.py [--reps 1000] [--jobs 2] [--out benchmarks/out/verdict_rule.csv]

Simulated patients have scores from binormal arms. An arm's expected AUROC is the baseline's (null) or `effect` above;
each training departs from it by its luck, with the standard deviation `spread` on the scale of the AUROC. The parts of
the luck: `free` every training its own; `crossed` 40 % of the variance from the draw, 40 % from the seed; `fold` 70 %
shared by all trainings of a fold; `seed` all from the seed, as with all labels, where there is one draw; `everywhere`
all from the seed and the same in every fold, as an untrained encoder's. Scores of one patient are correlated between
arms (0.4) and between trainings of an arm (0.6). `patients_alone` is the rule with patients as the only source of
variance, each arm by itself.

Everything after the scores is the package's own code: resamples, differences, max-T, verdicts.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from fewscans.bootstrap import resample_weights
from fewscans.keyed import key_of
from fewscans.metrics import weighted_ranking
from fewscans.verdict import (
    joint_correlation,
    joint_intervals,
    moderated,
    paired_difference,
    verdict,
)

SMALLEST_GAIN = 0.03
RESAMPLES = 200
WEIGHT_SETS = 40
BY_ARM, BY_TRAINING = 0.2, 0.4  # shares of a score's variance beyond what all arms see in a patient
# Shares of the luck's variance: of the draw, of the seed, of the fold, of the seed in all folds at once.
PARTS = {
    "free": (0.0, 0.0, 0.0, 0.0),
    "crossed": (0.4, 0.4, 0.0, 0.0),
    "fold": (0.3, 0.0, 0.7, 0.0),
    "seed": (0.0, 1.0, 0.0, 0.0),
    "everywhere": (0.0, 0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class Scenario:
    """One line of the table."""

    n: int
    folds: int
    draws: int
    seeds: int
    arms: int = 1
    spread: float = 0.03
    luck: str = "free"
    auroc: float = 0.8
    effect: float = 0.0


def simulate(s: Scenario, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores [arms + 1, K, D, S, n / K] (the baseline first) and targets [n / K], half of them positive."""
    per_fold = s.n // s.folds
    target = np.arange(per_fold) % 2
    grid = (s.arms + 1, s.folds, s.draws, s.seeds)
    draw, seed, fold, everywhere = PARTS[s.luck]
    luck = np.sqrt(max(0.0, 1 - draw - seed - fold - everywhere)) * rng.standard_normal(grid)
    luck = luck + np.sqrt(draw) * rng.standard_normal((*grid[:3], 1))
    luck = luck + np.sqrt(seed) * rng.standard_normal((*grid[:2], 1, s.seeds))
    luck = luck + np.sqrt(fold) * rng.standard_normal((*grid[:2], 1, 1))
    luck = luck + np.sqrt(everywhere) * rng.standard_normal((s.arms + 1, 1, 1, s.seeds))
    centre = np.full(s.arms + 1, s.auroc) + s.effect * (np.arange(s.arms + 1) > 0)
    auroc = np.clip(centre[:, None, None, None] + s.spread * luck, 0.05, 0.995)
    patient = rng.standard_normal((1, s.folds, 1, 1, per_fold))
    by_arm = rng.standard_normal((s.arms + 1, s.folds, 1, 1, per_fold))
    own = rng.standard_normal((*grid, per_fold))
    noise = (
        np.sqrt(1 - BY_ARM - BY_TRAINING) * patient
        + np.sqrt(BY_ARM) * by_arm
        + np.sqrt(BY_TRAINING) * own
    )
    return noise + np.sqrt(2) * norm.ppf(auroc)[..., None] * target, target


@lru_cache(maxsize=2 * WEIGHT_SETS)
def weights_of(per_fold: int, folds: int, which: int) -> np.ndarray:
    """Resamples [K, n / K, R + 1], the last of them the data as they are; a few sets serve all studies."""
    strata = [str(i % 2) for i in range(per_fold)]
    drawn = [resample_weights(strata, RESAMPLES, "benchmark", which, k) for k in range(folds)]
    return np.concatenate([np.stack(drawn), np.ones((folds, per_fold, 1))], axis=2)


def weighted_auroc(scores: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC [cells, R] of many scores [cells, n] by counting pairs: `metrics.weighted_ranking` for small n."""
    up, down = target == 1, target == 0
    wins = (scores[:, up, None] > scores[:, None, down]).astype(np.float64)
    won = np.einsum("pr,cpr->cr", weights[up], wins @ weights[down])
    return won / (weights[up].sum(axis=0) * weights[down].sum(axis=0))


def judge(s: Scenario, rep: int) -> tuple[list[str], list[str]]:
    """Verdict on each arm, by the rule and by patients alone, of one simulated study."""
    scores, target = simulate(s, np.random.default_rng([key_of("study", str(s)) % 2**32, rep]))
    arms, folds, draws, seeds, per_fold = scores.shape
    weights = weights_of(per_fold, folds, rep % WEIGHT_SETS)
    values = np.stack(
        [
            weighted_auroc(scores[:, k].reshape(-1, per_fold), target, weights[k])
            for k in range(folds)
        ],
        axis=1,
    ).reshape(arms, draws, seeds, folds, -1)
    apart = values[1:] - values[0]
    cells, resampled = np.moveaxis(apart[..., -1], 3, 1), apart[..., :-1].mean(axis=3)
    found = moderated(
        [
            paired_difference(float(c.mean()), c, v, complete_labels=s.draws == 1)
            for c, v in zip(cells, resampled, strict=True)
        ]
    )
    correlation = joint_correlation(cells, resampled.mean(axis=(1, 2)))
    bounds = joint_intervals(found, correlation, 0.05, rep)
    rule = [
        verdict(low, high, SMALLEST_GAIN) if one.known else "cannot tell"
        for one, (low, high) in zip(found, bounds, strict=True)
    ]
    alone = []
    for one, by_training in zip(found, resampled, strict=True):
        half = 1.96 * by_training.mean(axis=(0, 1)).std(ddof=1)
        alone.append(verdict(one.diff - half, one.diff + half, SMALLEST_GAIN))
    return rule, alone


def check() -> None:
    """The quick AUROC of this file is the package's."""
    scores, target = simulate(Scenario(60, 2, 1, 1), np.random.default_rng(0))
    weights = weights_of(30, 2, 0)[0]
    quick = weighted_auroc(scores[0, 0, 0], target, weights)[0]
    np.testing.assert_allclose(quick, weighted_ranking(target == 1, scores[0, 0, 0, 0], weights)[0])


def run(job: tuple[Scenario, int]) -> dict[str, object]:
    scenario, reps = job
    with threadpool_limits(1):
        results = [judge(scenario, rep) for rep in range(reps)]
    spoken = {
        name: np.mean([bool({"gain", "worse"} & set(r[i])) for r in results])
        for i, name in enumerate(("rule", "patients_alone"))
    }
    gain = np.mean([verdict == "gain" for r in results for verdict in r[0]])
    return {
        **asdict(scenario),
        "reps": reps,
        "any_gain_or_worse": spoken["rule"],
        "patients_alone": spoken["patients_alone"],
        "gain": gain,
    }


def scenarios() -> list[Scenario]:
    designs = [
        (50, 5, 2, 1),
        (150, 3, 2, 1),
        (150, 5, 2, 2),
        (150, 5, 3, 3),
        (400, 5, 2, 1),
        (400, 5, 3, 3),
    ]
    found = [Scenario(*design, spread=spread) for design in designs for spread in (0.0, 0.03, 0.06)]
    found += [Scenario(*design, luck=luck) for design in designs for luck in ("crossed", "fold")]
    # An official split; one draw is judged where all labels are used.
    found += [
        Scenario(200, 1, d, r, spread=spread, luck="free" if d > 1 else "seed")
        for d, r in ((1, 2), (1, 3), (1, 5), (2, 2), (3, 3))
        for spread in (0.0, 0.03)
    ]
    found += [Scenario(150, 3, 2, 1, arms=8, spread=spread) for spread in (0.0, 0.03, 0.06)]
    found += [
        Scenario(150, 3, 2, 1, arms=8, luck="fold"),
        Scenario(400, 5, 2, 1, arms=8),
        Scenario(150, 5, 3, 3, arms=8),
    ]
    found += [Scenario(150, 3, 2, 1, auroc=0.95), Scenario(400, 5, 3, 3, luck="fold", spread=0.06)]
    found += [
        Scenario(*design, luck="everywhere")
        for design in ((150, 3, 2, 1), (150, 5, 1, 3), (150, 5, 3, 3))
    ]
    found += [Scenario(*design, effect=effect) for design in designs for effect in (0.05, 0.1)]
    return found


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--reps", type=int, default=1000, help="simulated studies per line")
    made.add_argument("--jobs", type=int, default=1, help="processes")
    made.add_argument("--out", default="benchmarks/out/verdict_rule.csv", help="CSV to write")
    arguments = made.parse_args()
    began = time.perf_counter()
    jobs = [(scenario, arguments.reps) for scenario in scenarios()]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        check()
        rows = []
        for row in pool.map(run, jobs):
            rows.append(row)
            print(
                " ".join(
                    f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()
                ),
                flush=True,
            )
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).round(4).to_csv(out, index=False)
    print(f"{len(rows)} lines in {time.perf_counter() - began:.0f} s, written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
