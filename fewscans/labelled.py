"""Who is labelled and who is tested in one fold, and what an encoder may not have seen.

Reads `labels`, `folds` and `budgets`; no pixels and no torch here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans.contracts import read_table
from fewscans.errors import Problems, UserError
from fewscans.fitted import FITTED
from fewscans.protocols.task import Task

SHOWN = 5


@dataclass(frozen=True)
class Budget:
    """Labelled scans of one budget and draw."""

    name: str
    draw: int
    task: Task
    n_patients: int


@dataclass(frozen=True)
class Fold:
    """One fold: its scans in order of their keys, and the budgets in order of size."""

    name: str
    classes: list[str]
    scans: list[str]
    """N scans of the roles train and test; a task's positions count in this list."""
    roles: list[str]
    table: pd.DataFrame
    """Row per scan of `scans`: path, patient, group, target (class index, -1 = no label)."""
    budgets: list[Budget]

    @property
    def train(self) -> NDArray[np.int64]:
        """Positions of all training scans, labelled or not."""
        return np.array([i for i, role in enumerate(self.roles) if role == "train"], dtype=np.int64)


def read_fold(
    fold: str,
    labels: Path,
    folds: Path,
    budgets: Path,
    *,
    classes: list[str],
    stored: Collection[str] | None = None,
) -> Fold:
    """The fold `fold` with every budget and draw.

    Scans that a store (`stored`) does not hold are left out where nobody needs them; a labelled or
    tested one that is missing is an error, since arms would otherwise be scored on different
    patients.

    Raises
    ------
    UserError
        The tables do not fit together: an unknown fold, a budget's scan that is no training scan or
        has no label.
    """
    known = read_table(labels, "labels").set_index("scan", drop=False)
    members = read_table(folds, "folds")
    if fold not in set(members["fold"]):
        raise UserError(
            f"{folds}: no fold '{fold}'. Known: {', '.join(sorted(set(members['fold'])))}"
        )
    members = members[
        (members["fold"] == fold) & members["role"].isin(["train", "test"])
    ].sort_values("scan")
    missing = [scan for scan in members["scan"] if scan not in known.index]
    if missing:
        raise UserError(f"{folds}: {len(missing)} scans are not in {labels}. Make the folds again.")
    if stored is not None:
        _check_stored(fold, members, known, budgets, stored)
        members = members[members["scan"].isin(stored)]
    table = known.loc[members["scan"], ["scan", "path", "patient", "target"]].reset_index(drop=True)
    table["group"] = members["group"].to_numpy()
    named = classes or sorted(set(known["target"]) - {""})
    table["target"] = _class_indices(table, named, labels)
    scans, roles = list(members["scan"]), list(members["role"])
    test = np.flatnonzero(
        (members["role"] == "test").to_numpy() & (table["target"] >= 0).to_numpy()
    )
    if not len(test):
        raise UserError(f"{folds}: fold '{fold}' has no labelled test scan. Make the folds again.")
    found = list(_read_budgets(fold, budgets, table, roles, test.astype(np.int64), len(named)))
    return Fold(fold, list(named), scans, roles, table, found)


def _class_indices(table: pd.DataFrame, classes: list[str], labels: Path) -> list[int]:
    """Index into `classes` for each row; -1 where there is no label."""
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(table["target"]) - {"", *index})
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:SHOWN])
        raise UserError(f"{labels}: labels that are no class: {shown}. Known: {', '.join(classes)}")
    return [index.get(name, -1) for name in table["target"]]


def _read_budgets(
    fold: str,
    path: Path,
    table: pd.DataFrame,
    roles: list[str],
    test: NDArray[np.int64],
    n_classes: int,
) -> Iterator[Budget]:
    """Budgets in order of size, then name and draw, whatever their order in the file."""
    rows = read_table(path, "budgets")
    rows = rows[rows["fold"] == fold]
    if rows.empty:
        raise UserError(f"{path}: no budget for fold '{fold}'. Make the budgets again.")
    position = {scan: i for i, scan in enumerate(table["scan"])}
    problems = Problems(f"{path}: does not fit the folds; make the budgets again")
    parts = sorted(rows.groupby(["budget", "draw"]), key=lambda part: (len(part[1]), *part[0]))
    for (name, draw), part in parts:
        part = part.sort_values("scan")
        for scan in part["scan"]:
            if scan not in position or roles[position[scan]] != "train":
                problems.add(
                    scan, f"is labelled in budget {name}, but no training scan of fold '{fold}'"
                )
            elif table["target"].iat[position[scan]] < 0:
                problems.add(scan, f"is labelled in budget {name}, but has no label")
        if problems.lines:
            continue
        labelled = np.array([position[scan] for scan in part["scan"]], dtype=np.int64)
        task = Task(
            labelled=labelled,
            targets=table["target"].to_numpy(dtype=np.int64)[labelled],
            inner=part["inner"].to_numpy(dtype=np.int64),
            test=test,
            n_classes=n_classes,
        )
        yield Budget(str(name), int(draw), task, table["patient"].iloc[labelled].nunique())
    problems.lines = problems.lines[:SHOWN]
    problems.raise_if_any()


def _check_stored(
    fold: str, members: pd.DataFrame, known: pd.DataFrame, budgets: Path, stored: Collection[str]
) -> None:
    rows = read_table(budgets, "budgets")
    tested = members.loc[members["role"] == "test", "scan"]
    needed = {scan for scan in tested if known.at[scan, "target"]} | set(
        rows.loc[rows["fold"] == fold, "scan"]
    )
    absent = sorted(needed & set(known.index) - set(stored))
    if absent:
        lines = [
            (known.at[scan, "path"], "is labelled or tested, but not in the store")
            for scan in absent[:SHOWN]
        ]
        raise UserError(
            f"{len(absent)} scans of fold '{fold}' are missing; make the store again", lines
        )


def count_pretraining_scans(folds: Path, fold: str) -> int:
    """Scans that a pretraining on this fold may see: training scans, labelled or not, and pools."""
    members = read_table(folds, "folds")
    return int(((members["fold"] == fold) & members["role"].isin(["train", "pool"])).sum())


def check_not_seen(encoder: dict[str, Any], folder: Path, folds: Path, fold: str) -> list[str]:
    """Flags of an encoder, after making sure that it has not seen the test groups of `fold`.

    What counts as seen are the encoder's own source scans, those that its stores were fitted on, and
    both of every parent; a scan counts as a test scan if its group is tested, whatever its role.

    Raises
    ------
    UserError
        The encoder has seen test groups and does not say that it is transductive.
    """
    if encoder.get("transductive"):
        return ["transductive"]
    members = read_table(folds, "folds")
    members = members[members["fold"] == fold]
    tested = set(members.loc[members["role"] == "test", "group"])
    forbidden = dict(
        members.loc[members["group"].isin(tested), ["scan", "group"]].itertuples(index=False)
    )
    seen = {scan: how for scan, how in _seen(encoder, "it") if scan in forbidden}
    if seen:
        lines = [
            (scan, f"of test group {forbidden[scan]}: {how}")
            for scan, how in sorted(seen.items())[:SHOWN]
        ]
        raise UserError(
            f"{folder}: this encoder has seen {len(seen)} scans of groups that fold '{fold}' "
            "tests. Pretrain it on this fold's training scans, or say `transductive: true`",
            lines,
        )
    return []


def _seen(encoder: dict[str, Any], who: str) -> Iterator[tuple[str, str]]:
    """(scan, how it was seen) of an encoder and all its parents; what counts more comes later."""
    for one in (encoder.get(FITTED) or {}).values():
        for scan in one["scans"]:
            yield scan, f"{who} has pixels that were standardised by it"
    for scan in encoder.get("source_scans") or []:
        yield scan, f"{who} was pretrained on it"
    for parent in encoder.get("parents") or []:
        yield from _seen(parent, f"parent {parent.get('name') or parent.get('method') or '?'}")
