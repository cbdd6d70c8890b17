"""From predicted scans to scored units: patients or scans of each fold, the same for every arm, and their resamples."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans.aggregate.inputs import RUN, Dataset
from fewscans.bootstrap import resample_weights

NO_TWINS = ", no twins"
FEW_GROUPS = 5  # of a class in a fold; below, spread is hardly seen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class FoldUnits:
    """The tested units of one fold, n of them in G groups."""

    name: str
    target: Ints
    """[n]"""
    group: Ints
    """[n] index of the unit's group."""
    strata: NDArray[np.object_]
    """[G] classes that a group has; groups are resampled among their like."""
    member: Ints
    """[scans] unit of each tested scan, in the order of scans; -1 = not scored here."""
    weights: Floats
    """[n, R] weight of each unit in each resample."""

    def average(self, prob: Floats) -> Floats:
        """Mean probability [n, K] of each unit over its scans, from scans' [scans, K]."""
        kept = self.member >= 0
        total = np.zeros((len(self.target), prob.shape[1]))
        np.add.at(total, self.member[kept], prob[kept])
        mean = total / np.bincount(self.member[kept], minlength=len(self.target))[:, None]
        # Means of equal numbers differ in the last bit with how many there are; a tie must stay a tie.
        return np.round(mean, 12)


@dataclass
class Trainings:
    """Predictions of one arm at one budget: every draw x seed in each fold."""

    draws: list[int]
    seeds: list[int]
    folds: list[int]
    """Indices into the folds of the block."""
    prob: list[list[list[Floats]]]
    """[fold][draw][seed] -> [n, K]."""
    flags: set[str] = field(default_factory=set)


@dataclass
class Block:
    """A data set, counted in one unit."""

    dataset: str
    unit: str
    classes: list[str]
    folds: list[FoldUnits]
    runs: dict[tuple[str, str, int, int, str], Floats]
    """(arm, budget, draw, seed, fold) -> probabilities of its scans [scans, K]."""
    n_groups: int
    n_patients: int
    n_scans: int
    flags: set[str]

    def trainings(self, arm: str, budget: str) -> Trainings | None:
        """Trainings of an arm at a budget, done in all folds that have the budget; None where there is none."""
        found = [key for key in self.runs if key[:2] == (arm, budget)]
        if not found:
            return None
        with_budget = {key[4] for key in found}
        folds = [i for i, fold in enumerate(self.folds) if fold.name in with_budget]
        names = [self.folds[i].name for i in folds]
        flags = set() if len(folds) == len(self.folds) else {"fold-missing"}
        draws, seeds = sorted({key[2] for key in found}), sorted({key[3] for key in found})
        whole = [
            (d, s)
            for d in draws
            for s in seeds
            if all((arm, budget, d, s, f) in self.runs for f in names)
        ]
        if len(whole) < len(draws) * len(seeds):
            # A plan always asks for the full cross; keep the draws that have every seed.
            flags.add("incomplete")
            draws = [d for d in draws if all((d, s) in whole for s in seeds)]
            if not draws:
                return None
        prob = [
            [
                [
                    self.folds[i].average(self.runs[arm, budget, d, s, self.folds[i].name])
                    for s in seeds
                ]
                for d in draws
            ]
            for i in folds
        ]
        return Trainings(draws, seeds, folds, prob, flags)


def make_blocks(data: Dataset, units: list[str], resamples: int, seed: int) -> list[Block]:
    """A block for each unit, and a second one without twins where an official test part has some."""
    test = (data.rows["role"] == "test").to_numpy()
    rows, prob = data.rows[test], data.prob[test]
    scans, starts = _tested_scans(rows)
    runs = {}
    keys = rows.iloc[starts][RUN].itertuples(index=False)
    for (arm, budget, draw, fold, seed_), part in zip(
        keys, np.split(prob, starts[1:]), strict=True
    ):
        runs[str(arm), str(budget), int(draw), int(seed_), str(fold)] = part
    has_twins = bool(set(data.twins) & {scan for part in scans.values() for scan in part["scan"]})
    blocks = []
    for unit in units:
        blocks.append(_make_block(data, unit, False, scans, runs, resamples, seed))
        if has_twins:
            blocks.append(_make_block(data, unit, True, scans, runs, resamples, seed))
    return blocks


def _tested_scans(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], Ints]:
    """Tested scans of each fold (one table, since all runs of a fold have the same), and where runs begin in `rows`."""
    codes = np.stack([rows[c].cat.codes if rows[c].dtype == "category" else rows[c] for c in RUN])
    starts = np.flatnonzero(np.append(True, (np.diff(codes, axis=1) != 0).any(axis=0)))
    bounds = np.append(starts, len(rows))
    scans: dict[str, pd.DataFrame] = {}
    for start, stop in pairwise(bounds):
        part = rows.iloc[start:stop]
        fold = str(part["fold"].iloc[0])
        if fold not in scans:
            scans[fold] = part[["scan", "patient", "group", "target"]].astype(
                {"target": int, "scan": str}
            )
    return dict(sorted(scans.items())), starts


def _make_block(
    data: Dataset,
    unit: str,
    without: bool,
    scans: dict[str, pd.DataFrame],
    runs: dict,
    resamples: int,
    seed: int,
) -> Block:
    folds, flags, kept = [], set(), []
    for name, part in scans.items():
        used = ~part["scan"].isin(data.twins).to_numpy() if without else np.ones(len(part), bool)
        fold = _fold_units(name, part, used, unit, resamples, (seed, data.name))
        folds.append(fold)
        kept.append(part[used])
        n_classes = len(data.classes)
        if len(set(fold.target.tolist())) < n_classes:
            flags.add("class-missing")
        rarest = min(len(set(fold.group[fold.target == c].tolist())) for c in range(n_classes))
        if rarest < FEW_GROUPS:
            flags.add("few-groups")
    tested = pd.concat(kept)
    if unit == "patient" and tested.groupby("patient", observed=True)["target"].nunique().max() > 1:
        flags.add("patients-with-several-classes")
    return Block(
        data.name, unit + NO_TWINS if without else unit, data.classes, folds, runs,
        tested["group"].nunique(), tested["patient"].nunique(), tested["scan"].nunique(), flags,
    )  # fmt: skip


def _fold_units(
    name: str,
    part: pd.DataFrame,
    used: NDArray[np.bool_],
    unit: str,
    resamples: int,
    key: tuple[int, str],
) -> FoldUnits:
    """Units of a fold in the order of their names; a patient with scans of two classes is a unit in each."""
    who = part["patient"] if unit == "patient" else part["scan"]
    names = list(zip(who.astype(str), part["target"], strict=True))
    order = sorted({name for name, there in zip(names, used, strict=True) if there})
    index = {unit_name: i for i, unit_name in enumerate(order)}
    member = np.array(
        [index[n] if there else -1 for n, there in zip(names, used, strict=True)], dtype=np.int64
    )
    target = np.array([label for _, label in order], dtype=np.int64)
    groups = part["group"].astype(str).to_numpy(dtype=object)
    group_names = sorted(set(groups[used]))
    position = {group: i for i, group in enumerate(group_names)}
    group = np.zeros(len(order), dtype=np.int64)
    group[member[used]] = [position[g] for g in groups[used]]
    strata = np.array(
        [
            "+".join(map(str, sorted(set(target[group == g].tolist()))))
            for g in range(len(group_names))
        ],
        dtype=object,
    )
    weights = resample_weights(strata.tolist(), resamples, *key, name)[group]
    return FoldUnits(name, target, group, strata, member, weights)
