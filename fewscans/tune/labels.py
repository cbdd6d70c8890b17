"""Whose labels a search may use: one budget of the training scans of one fold.

Test groups are left out before anything else is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fewscans.config.stages import TuneParams
from fewscans.contracts import read_table
from fewscans.errors import UserError
from fewscans.keyed import key_of
from fewscans.protocols.task import Task

# Of the budget that chooses.
DRAW = 0


@dataclass(frozen=True)
class Labelled:
    """Training scans of a fold, and the labelled ones among them with their inner folds."""

    scans: list[str]
    """N training scans in order of their keys, labelled or not; a task's positions count in this list."""
    budget: str
    task: Task
    """Its `test` are two labelled scans that nobody looks at."""
    n_patients: int
    n_pretraining: int
    """Scans that a pretraining may see: training scans and pools."""
    tested_elsewhere: list[str]
    """Other folds that test a group whose labels were used here."""

    def identity(self) -> list[list[object]]:
        """Everything of it that a value follows from."""
        task = self.task
        rows = zip(task.labelled, task.targets, task.inner, strict=True)
        return [[self.scans[i], int(target), int(inner)] for i, target, inner in rows]


def read_labelled(
    params: TuneParams, labels: Path, folds: Path, budgets: Path, stored: set[str]
) -> Labelled:
    """Labels that the search may use.

    Raises
    ------
    UserError
        No budget has inner folds, or the tables do not fit together.
    """
    members = read_table(folds, "folds")
    here = members[members["fold"] == params.fold]
    if here.empty:
        known = ", ".join(sorted(set(members["fold"])))
        raise UserError(f"{folds}: no fold '{params.fold}'. Known: {known}")
    train = here[(here["role"] == "train") & here["scan"].isin(stored)].sort_values("scan")
    scans = list(train["scan"])
    table = read_table(labels, "labels").set_index("scan")
    table = table.loc[table.index.isin(scans), ["patient", "target"]]
    rows, budget = _budget(params, budgets)
    absent = sorted(set(rows["scan"]) - set(scans))
    if absent:
        raise UserError(
            f"{budgets}: {len(absent)} scans of budget {budget} (e.g. {absent[0]}) are no stored training scans of "
            f"fold '{params.fold}'. Make folds, budgets and store again."
        )
    classes = params.classes or sorted(set(table["target"]) - {""})
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(table.loc[rows["scan"], "target"]) - set(index))
    if unknown:
        raise UserError(f"{labels}: labels that are no class: {unknown}. Known: {classes}")
    position = {scan: i for i, scan in enumerate(scans)}
    labelled = np.array([position[scan] for scan in rows["scan"]], dtype=np.int64)
    task = Task(
        labelled=labelled,
        targets=np.array([index[t] for t in table.loc[rows["scan"], "target"]], dtype=np.int64),
        inner=rows["inner"].to_numpy(dtype=np.int64),
        test=labelled[:2],
        n_classes=len(classes),
        key=key_of("tune", params.base_seed, params.fold),
    )
    seen = set(here.loc[here["scan"].isin(rows["scan"]), "group"])
    elsewhere = members[(members["fold"] != params.fold) & (members["role"] == "test")]
    return Labelled(
        scans,
        budget,
        task,
        n_patients=table.loc[rows["scan"], "patient"].nunique(),
        n_pretraining=int(here["role"].isin(["train", "pool"]).sum()),
        tested_elsewhere=sorted(set(elsewhere.loc[elsewhere["group"].isin(seen), "fold"])),
    )


def _budget(params: TuneParams, path: Path) -> tuple[pd.DataFrame, str]:
    """Rows of the budget that chooses, and its name: what was asked for, else the smallest with inner folds."""
    rows = read_table(path, "budgets")
    rows = rows[(rows["fold"] == params.fold) & (rows["draw"] == DRAW)]
    sizes = rows.groupby("budget").size().sort_values(kind="stable")
    if params.budget is not None and params.budget not in sizes.index:
        known = ", ".join(map(str, sizes.index)) or "none"
        raise UserError(
            f"{path}: no budget '{params.budget}' on fold '{params.fold}'. Known: {known}. Set `tune.budget` to one "
            "of `budgets`."
        )
    wanted = [params.budget] if params.budget is not None else list(sizes.index)
    for name in wanted:
        found = rows[rows["budget"] == name].sort_values("scan")
        if found.loc[found["inner"] >= 0, "inner"].nunique() > 1:
            return found, str(name)
    what = f"budget {params.budget}" if params.budget else "no budget"
    verb = "has no" if params.budget else "has"
    raise UserError(
        f"fold '{params.fold}' of {params.dataset}: {what} {verb} inner folds: the rarest class has fewer than 3 "
        "groups, so nothing can be chosen without looking at test scans. Set a larger `tune.budget`, or leave "
        "`tune` out and keep the defaults."
    )
