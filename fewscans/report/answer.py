"""The answer first: what each comparison with the baseline says, in sentences."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from fewscans.figures import names
from fewscans.figures.inputs import Results
from fewscans.report import words
from fewscans.report.tables import split_flags

UNKNOWN = "training-variance-unknown"


def question(results: Results) -> str:
    """What was asked."""
    metric, baseline = names.metric(results.metric), results.baseline_title
    return (
        f"Does self-supervised pretraining help on these scans, compared with {baseline}? Judged by {metric} per "
        f"{results.unit}; a gain of {results.compare.smallest_gain:g} or more is of interest."
    )


def answer(results: Results, dataset: str) -> dict[str, Any]:
    """Headline, a grid of verdicts (arm x budget), and a sentence per comparison, by budget."""
    contrasts = results.contrast(dataset)
    budgets = [budget for budget in results.budgets(dataset) if budget in set(contrasts.budget)]
    order = [arm for arm in results.scored_arms(dataset) if arm in set(contrasts.arm)]
    known = {(row.arm, row.budget): row for row in contrasts.itertuples()}
    asked = [
        row for b in budgets for arm in order
        if results.is_pretrained(arm) and (row := known.get((arm, b)))
    ]  # fmt: skip
    return {
        "headline": headline(results, dataset, asked),
        "detectable": detectable(asked),
        "budgets": [names.labelled(b, results.n_labelled(dataset, b)) for b in budgets],
        "grid": [
            {
                "arm": results.names.arm(arm),
                "pretrained": results.is_pretrained(arm),
                "cells": [_cell(known.get((arm, budget))) for budget in budgets],
            }
            for arm in order
        ],
        "sentences": [
            {
                "budget": names.with_labels(budget, results.n_labelled(dataset, budget)),
                "said": [sentence(results, row) for row in asked if row.budget == budget],
            }
            for budget in budgets
        ],
        "n_sentences": len(asked),
        "chosen": chosen(results, dataset),
    }


def headline(results: Results, dataset: str, asked: list[Any]) -> str:
    """One or two sentences over all comparisons of self-supervised arms."""
    n, baseline = len(asked), results.baseline_title
    if not n:
        return "No self-supervised arm was compared with a baseline in this run."
    counts = Counter(row.verdict for row in asked)
    worse = f" It was worse in {counts['worse']}." if counts["worse"] else ""
    if counts["gain"]:
        return (
            f"Pretraining gained over {baseline} in {counts['gain']} of {names.count(n, 'comparison')}: "
            f"{_by_budget(results, dataset, asked)}.{worse}"
        )
    if counts["cannot tell"] == n:
        return f"These data cannot tell whether pretraining helps against {baseline} ({names.count(n, 'comparison')})."
    gain, ruled_out = f"{results.compare.smallest_gain:g}", counts["no gain"] + counts["worse"]
    rest = f"; {counts['cannot tell']} cannot be told" if counts["cannot tell"] else ""
    return (
        f"No gain over {baseline} was shown in {names.count(n, 'comparison')}. A gain of {gain} or more is "
        f"ruled out in {ruled_out}{rest}.{worse}"
    )


def _by_budget(results: Results, dataset: str, asked: list[Any]) -> str:
    """``2 of 4 with 12 patients, ...``: no arm is named by its test score."""
    parts = []
    for budget in dict.fromkeys(row.budget for row in asked):
        here = [row.verdict == "gain" for row in asked if row.budget == budget]
        patients = names.labelled(budget, results.n_labelled(dataset, budget))
        parts.append(f"{sum(here)} of {len(here)} with {patients}")
    return ", ".join(parts)


def detectable(asked: list[Any]) -> str:
    """What could have been shown where nothing can be told."""
    open_ = [row for row in asked if row.verdict == "cannot tell"]
    judged = [row for row in open_ if UNKNOWN not in split_flags(row.flags)]
    if open_ and not judged:
        return (
            "There are too few trainings to judge by; more seeds and draws would allow a verdict."
        )
    sizes = [
        row.smallest_detectable
        for row in judged
        if row.smallest_detectable == row.smallest_detectable
    ]
    if not sizes:
        return ""
    low, high = names.number(min(sizes)), names.number(max(sizes))
    span = low if low == high else f"{low} to {high}"
    return f"Where nothing can be told, a difference of {span} would have been shown four times in five."


def sentence(results: Results, row: Any) -> dict[str, str]:
    """``SimCLR · linear probe: cannot tell against scratch (difference ...)``, in parts."""
    low, high = names.number(row.low), names.number(row.high)
    text = f"difference {names.number(row.diff, sign=True)}"
    if low != names.number(None):
        text += f", {words.level(results)} interval {low} to {high}"
    if row.verdict == "cannot tell":
        if UNKNOWN in split_flags(row.flags):
            text += "; too few trainings to judge by"
        elif row.smallest_detectable == row.smallest_detectable:
            text += (
                f"; a difference of {names.number(row.smallest_detectable)} could have been shown"
            )
    return {
        "arm": results.names.arm(row.arm),
        "verdict": row.verdict,
        "against": results.names.arm(row.baseline_arm),
        "numbers": text,
    }


def _cell(row: Any) -> dict[str, str] | None:
    return (
        None if row is None else {"verdict": row.verdict, "diff": names.number(row.diff, sign=True)}
    )


def chosen(results: Results, dataset: str) -> list[str]:
    """Which arm inner validation would choose, by budget: the only fair way to name a best one."""
    rows = results.rows(dataset)
    if "best_by_validation" not in rows.columns:
        return []
    best = rows[rows.best_by_validation.map(_true)]
    found = []
    for budget in results.budgets(dataset):
        arms = [results.names.arm(arm) for arm in best[best.budget == budget].arm]
        if arms:
            patients = names.with_labels(budget, results.n_labelled(dataset, budget))
            found.append(f"With {patients}: {', '.join(arms)}")
    return found


def _true(value: object) -> bool:
    return not pd.isna(value) and str(value).lower() in ("true", "1", "1.0")
