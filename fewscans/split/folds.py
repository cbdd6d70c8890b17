"""Folds: a group is on one side, and a corrected label rarely moves anybody.

Why so: docs/notes/0002-folds.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd

from fewscans.config.stages import FoldsParams
from fewscans.errors import Problems
from fewscans.split.order import hash_order, majority_by

log = logging.getLogger("fewscans")

OFFICIAL = "official"
SHOWN = 20  # problems of one kind listed one by one


def make_folds(
    labels: pd.DataFrame, params: FoldsParams, pools: Mapping[str, pd.DataFrame] | None = None
) -> pd.DataFrame:
    """Rows `scan, group, fold, role` for each scan and fold, pools behind the data set itself.

    Parameters
    ----------
    labels
        Table of the contract `labels`: its `split` holds train, val, test or nothing. With
        `pixel_sha256` (optional), exact copies of test scans are kept out of the pools.
    params
        Kind of split, number of folds, seed.
    pools
        Label tables of other data sets whose scans join pretraining, by name.

    Raises
    ------
    UserError
        With every class that is too small, or every labelled scan without an official part.
    """
    if params.split == "official":
        parts = [official_roles(labels, params.dataset)]
        names = [OFFICIAL]
    else:
        fold_of = assign_groups(labels, params.folds, params.seed, params.dataset)
        labelled = set(majority_by(_usable(labels), "group").index)
        parts = [grouped_roles(labels, fold_of, labelled, fold) for fold in range(params.folds)]
        names = [str(fold) for fold in range(params.folds)]
    frames = []
    for name, role in zip(names, parts, strict=True):
        own = pd.DataFrame(
            {"scan": labels["scan"], "group": labels["group"], "fold": name, "role": role}
        )
        frames.append(own)
        test = labels[np.asarray(role) == "test"]
        for pool, scans in (pools or {}).items():
            frames.append(_pool_rows(pool, scans, test, name))
    return pd.concat(frames, ignore_index=True)


def assign_groups(labels: pd.DataFrame, folds: int, seed: int, dataset: str) -> dict[str, int]:
    """Group -> fold, for all groups, labelled or not.

    First by rank of a keyed hash, which knows no label; then, where a class's share of a fold is
    off by more than max(1, 20 %), the fewest groups move. See `repair`.
    """
    groups = sorted(set(labels["group"]))
    order = hash_order(groups, seed, dataset, "fold")
    fold_of = {groups[g]: rank % folds for rank, g in enumerate(order)}
    classes = majority_by(_usable(labels), "group")
    _check_classes(classes, folds, dataset)
    # A second order, of its own key: the rank that dealt the folds must not also say who leaves
    # them.
    leaving = hash_order(groups, seed, dataset, "move")
    moved = repair(fold_of, classes, [groups[g] for g in leaving], folds)
    log.info(
        "folds: %d groups, %d with labels, %d moved to balance classes",
        len(groups),
        len(classes),
        moved,
    )
    return fold_of


def repair(fold_of: dict[str, int], classes: pd.Series, leaving: list[str], folds: int) -> int:
    """Balance `fold_of` in place with the fewest moves; their number.

    A class of n groups may have n / folds +- max(1, 20 %) of them in a fold, and at least one.
    Taking from the fullest fold and giving to the emptiest mends one surplus and one lack at once,
    so no plan needs fewer moves. Classes do not disturb each other: a move changes the counts of
    its own class only.
    """
    moved = 0
    for label in sorted(set(classes)):
        members = [group for group in leaving if classes.get(group) == label]
        low, high = class_bounds(len(members), folds)
        while True:
            counts = np.bincount([fold_of[group] for group in members], minlength=folds)
            if counts.min() >= low and counts.max() <= high:
                break
            fullest, emptiest = int(counts.argmax()), int(counts.argmin())
            first = next(group for group in members if fold_of[group] == fullest)
            fold_of[first] = emptiest
            moved += 1
    return moved


def class_bounds(n_groups: int, folds: int) -> tuple[int, int]:
    """Fewest and most groups of a class of `n_groups` that a fold may hold."""
    mean = n_groups / folds
    slack = max(1.0, 0.2 * mean)
    # The small number keeps 5 * 1.2 from being 5.999... on one machine and 6.0 on the next.
    return max(1, int(np.ceil(mean - slack - 1e-9))), int(np.floor(mean + slack + 1e-9))


def grouped_roles(
    labels: pd.DataFrame, fold_of: Mapping[str, int], labelled: set[str], fold: int
) -> np.ndarray:
    """Role of each scan in one fold of a grouped split.

    Groups without any label are never tested: they are for pretraining, in every fold. Scans
    without a label in a group that has one go with their group.
    """
    tested = (
        labels["group"]
        .map(lambda group: group in labelled and fold_of[group] == fold)
        .to_numpy(bool)
    )
    return np.where(~_is_ok(labels), "excluded", np.where(tested, "test", "train"))


def official_roles(labels: pd.DataFrame, dataset: str) -> np.ndarray:
    """Role of each scan in the published split: val joins train, copies of test scans leave it.

    Raises
    ------
    UserError
        Labelled scans without a part; a class without a training scan; a test part without two
        classes.
    """
    ok, part = _is_ok(labels), labels["split"].to_numpy(str)
    problems = Problems(f"datasets.{dataset}.split: official")
    lost = labels[ok & (labels["target"] != "") & ~np.isin(part, ["train", "val", "test"])]
    for path in lost["path"].iloc[:SHOWN]:
        problems.add(
            str(path),
            "has a label and no official part. Fill its split in, or choose `split: grouped`.",
        )
    if len(lost) > SHOWN:
        problems.add("...", f"and {len(lost) - SHOWN} more without an official part.")
    # A group that stands in the test part by an unreadable scan alone is in the test part all the
    # same.
    test_groups = set(labels.loc[part == "test", "group"])
    meets = labels["group"].isin(test_groups).to_numpy() & (part != "test")
    role = np.where(~ok | meets, "excluded", np.where(part == "test", "test", "train"))
    if not problems.lines:
        _check_parts(labels, role, problems)
    problems.raise_if_any()
    if meets.any():
        log.info(
            "folds: %d training scans excluded: their groups meet the test part",
            int((meets & ok).sum()),
        )
    return role


def _check_parts(labels: pd.DataFrame, role: np.ndarray, problems: Problems) -> None:
    classes = sorted(set(_usable(labels)["target"]) - {""})
    in_role = {name: set(labels.loc[role == name, "target"]) - {""} for name in ("train", "test")}
    if len(classes) < 2:
        problems.add("label", f"there must be two classes with labels; there is {len(classes)}.")
    for label in classes:
        if label not in in_role["train"]:
            problems.add(
                "train",
                f"no scan of class '{label}' is left. (Training scans whose group meets the test "
                "part are not used.)",
            )
    if len(in_role["test"]) < 2 <= len(classes):
        problems.add(
            "test", f"has labelled scans of {len(in_role['test'])} classes; a score needs two."
        )


def _check_classes(classes: pd.Series, folds: int, dataset: str) -> None:
    problems = Problems(f"datasets.{dataset}")
    counts = classes.value_counts().sort_index()
    if len(counts) < 2:
        problems.add("label", f"there must be two classes with labels; there is {len(counts)}.")
    for label, n in counts.items():
        if n < 2:
            problems.add(
                f"class '{label}'",
                "has 1 group of patients: it cannot be both trained on and tested. "
                "Leave its labels out, or join it with another class.",
            )
        elif n < folds:
            problems.add(
                f"class '{label}'",
                f"has {n} groups of patients, fewer than validation.folds ({folds}). "
                f"Set validation.folds to {n} or less, or join it with another class.",
            )
    problems.raise_if_any()


def _pool_rows(pool: str, scans: pd.DataFrame, test: pd.DataFrame, fold: str) -> pd.DataFrame:
    """Rows of one pool in one fold; groups that hold an exact copy of a test scan are excluded."""
    usable = scans[_is_ok(scans)]
    role = np.full(len(usable), "pool", dtype=object)
    if "pixel_sha256" in usable.columns and "pixel_sha256" in test.columns:
        tested = set(test["pixel_sha256"].dropna()) - {""}
        copies = usable.loc[usable["pixel_sha256"].isin(tested), "group"]
        role[usable["group"].isin(set(copies)).to_numpy()] = "excluded"
        if len(copies):
            log.info(
                "folds: pool %s, fold %s: %d copies of test scans kept out", pool, fold, len(copies)
            )
    return pd.DataFrame(
        {"scan": usable["scan"], "group": usable["group"], "fold": fold, "role": role}
    )


def _is_ok(labels: pd.DataFrame) -> np.ndarray:
    return (labels["status"] == "ok").to_numpy(bool)


def _usable(labels: pd.DataFrame) -> pd.DataFrame:
    return labels[_is_ok(labels)]
