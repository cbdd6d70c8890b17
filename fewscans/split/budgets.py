"""Budgets: whose labels may be used. Nested random subsets of patients, the same for every arm."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fewscans.config.stages import BudgetsParams
from fewscans.errors import Problems
from fewscans.split.order import deal, hash_order, majority_by

log = logging.getLogger("fewscans")

# Inner folds are as many as the rarest class has groups, up to 5; under 3 nothing is chosen.
MOST_INNER, FEWEST_INNER = 5, 3


def make_budgets(
    labels: pd.DataFrame, folds: pd.DataFrame, params: BudgetsParams
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows `fold, budget, draw, scan, inner`, and which budgets were merged into which other one.

    A number counts labelled patients of the fold's training part, a share is of them, `all` is all
    of them, with one draw. Within a draw the patients of a smaller budget are among those of a
    larger one, and a draw is the same whichever other budgets stand beside it.

    Raises
    ------
    UserError
        With every budget that leaves a class empty.
    """
    parts = {fold: labelled_part(labels, folds, fold) for fold in folds["fold"].drop_duplicates()}
    patients = {fold: majority_by(part, "patient") for fold, part in parts.items()}
    sizes = _sizes(patients, params)
    kept, merged = _merge(params.budgets, sizes, patients)
    rows = []
    for fold, part in parts.items():
        for draw in range(params.draws):
            key = (params.seed, params.dataset, fold, draw)
            sequence = patient_sequence(patients[fold], *key)
            for budget in kept:
                if budget == "all" and draw > 0:
                    continue
                chosen = part[part["patient"].isin(set(sequence[: sizes[budget, fold]]))]
                inner = inner_folds(chosen, *key)
                rows.append(
                    pd.DataFrame(
                        {
                            "fold": fold,
                            "budget": budget,
                            "draw": draw,
                            "scan": chosen["scan"],
                            "inner": inner,
                        }
                    )
                )
    for budget, into in merged.items():
        log.info(
            "budgets: '%s' is the same as '%s' in every fold and was merged into it", budget, into
        )
    return pd.concat(rows, ignore_index=True), merged


def labelled_part(labels: pd.DataFrame, folds: pd.DataFrame, fold: str) -> pd.DataFrame:
    """Rows of `labels` that are labelled and in the training part of `fold`."""
    trained = set(folds.loc[(folds["fold"] == fold) & (folds["role"] == "train"), "scan"])
    return labels[
        (labels["status"] == "ok") & (labels["target"] != "") & labels["scan"].isin(trained)
    ]


def patient_sequence(classes: pd.Series, *key: int | str) -> list[str]:
    """All patients in an order of which every beginning is a stratified subset.

    One patient of each class first, the most frequent class in front; then always the class that is
    furthest behind its share, by Sainte-Lague's divisors n / (2 a + 1): a method of quotients, so
    that adding a patient never takes a seat from a class (largest remainders do, and subsets would
    not be nested).
    """
    queues: dict[str, list[str]] = {}
    for label in sorted(set(classes)):
        names = [str(name) for name in classes.index[classes == label]]
        queues[label] = [names[i] for i in hash_order(names, *key, "patient")]
    by_size = sorted(queues, key=lambda label: (-len(queues[label]), label))
    taken = dict.fromkeys(by_size, 1)
    sequence = [queues[label][0] for label in by_size]
    for _ in range(len(classes) - len(sequence)):
        behind = [label for label in by_size if taken[label] < len(queues[label])]
        label = max(behind, key=lambda name: len(queues[name]) / (2 * taken[name] + 1))
        sequence.append(queues[label][taken[label]])
        taken[label] += 1
    return sequence


def inner_folds(chosen: pd.DataFrame, *key: int | str) -> np.ndarray:
    """Inner fold of each labelled scan, by group, stratified; -1: a class has under 3 groups."""
    classes = majority_by(chosen, "group")
    k = min(MOST_INNER, int(classes.value_counts().min()))
    # A group of two labels counts for one of them, so a class can be left without a group of its
    # own.
    if k < FEWEST_INNER or classes.nunique() < chosen["target"].nunique():
        return np.full(len(chosen), -1, dtype=np.int64)
    dealt = deal(classes, k, *key, "inner")
    return chosen["group"].map(dealt).to_numpy(np.int64)


def budget_size(budget: str, n_patients: int, n_classes: int) -> int:
    """Patients that `budget` means out of `n_patients`; a share is at least one per class."""
    if budget == "all":
        return n_patients
    if budget.endswith("%"):
        share = int(budget[:-1]) * n_patients
        return min(n_patients, max(n_classes, (share + 50) // 100))  # half up, in whole numbers
    return min(n_patients, int(budget))


def _sizes(patients: dict[str, pd.Series], params: BudgetsParams) -> dict[tuple[str, str], int]:
    """(budget, fold) -> labelled patients; raises for budgets that leave a class empty."""
    problems = Problems(f"budgets of data set {params.dataset}")
    sizes = {}
    for budget in dict.fromkeys([*params.budgets, "all"]):
        for fold, classes in patients.items():
            n_classes = classes.nunique()
            if n_classes == 0:
                problems.add(f"fold {fold}", "has no labelled patient to train on.")
                continue
            sizes[budget, fold] = budget_size(budget, len(classes), n_classes)
            if sizes[budget, fold] < n_classes:
                problems.add(
                    f"budgets: {budget}",
                    f"leaves a class empty: {n_classes} classes need at least {n_classes} "
                    "labelled patients. Raise it.",
                )
    problems.raise_if_any()
    return sizes


def _merge(
    budgets: Sequence[str], sizes: dict[tuple[str, str], int], patients: dict[str, pd.Series]
) -> tuple[list[str], dict[str, str]]:
    """Budgets to draw, and budget -> the equal one that stands for it.

    Equal means in every fold: a number that is all patients of one fold only stays, or it would
    lack folds.
    """
    everyone = tuple(len(classes) for classes in patients.values())
    kept: dict[tuple[int, ...], str] = {}
    merged = {}
    if "all" in budgets:
        kept[everyone] = "all"
    for budget in dict.fromkeys(budgets):
        size = tuple(sizes[budget, fold] for fold in patients)
        name = "all" if size == everyone else budget
        standing = kept.setdefault(size, name)
        if standing != budget:
            merged[budget] = standing
    return [
        budget for budget in dict.fromkeys([*budgets, "all"]) if budget in kept.values()
    ], merged
