"""Cohorts to split, any number of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from fewscans.config.stages import FoldsParams
from fewscans.split import make_folds


def cohort(
    n: int = 60, seed: int = 0, shares: tuple[float, ...] = (0.5, 0.5), unlabelled: float = 0.1
) -> pd.DataFrame:
    """Labels of n patients with one to four scans; some share a group, some have no label."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(n):
        # Every class is there at least six times, whatever the shares.
        target = f"c{p // 6}" if p < 6 * len(shares) else f"c{rng.choice(len(shares), p=shares)}"
        if p >= 6 * len(shares) and rng.random() < unlabelled:
            target = ""
        group = f"g{p - 1}" if p >= 6 * len(shares) and rng.random() < 0.1 else f"g{p}"
        for s in range(rng.integers(1, 5)):
            name = f"p{p}/{s}"
            status = "unreadable" if s == 3 else "ok"
            rows.append((name, name, f"p{p}", group, target, "", "", status, ""))
    columns = ["scan", "path", "patient", "group", "target", "split", "site", "status", "reason"]
    return pd.DataFrame(rows, columns=columns)


cohorts = st.builds(
    cohort,
    n=st.integers(30, 90),
    seed=st.integers(0, 10_000),
    shares=st.sampled_from([(0.5, 0.5), (0.85, 0.15), (0.6, 0.3, 0.1)]),
    unlabelled=st.sampled_from([0.0, 0.3]),
)


def folds_of(labels: pd.DataFrame, folds: int = 3, seed: int = 0) -> pd.DataFrame:
    """Grouped folds of them."""
    return make_folds(labels, FoldsParams(dataset="d", folds=folds, seed=seed))
