"""The answer first: what each comparison with the baseline says, in sentences."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from fewscans.figures import names
from fewscans.figures.inputs import Results
from fewscans.report import words
from fewscans.report.tables import split_flags

MOST_NAMED = 3


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
        row for arm in order for b in budgets
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
    gains = sorted((row for row in asked if row.verdict == "gain"), key=lambda row: -row.low)
    worse = f" It was worse in {counts['worse']}." if counts["worse"] else ""
    if gains:
        said = "; ".join(_named(results, dataset, row) for row in gains[:MOST_NAMED])
        more = f"; and {len(gains) - MOST_NAMED} more" if len(gains) > MOST_NAMED else ""
        return f"Pretraining gained over {baseline} in {len(gains)} of {n} comparisons: {said}{more}.{worse}"
    if counts["cannot tell"] == n:
        return f"These data cannot tell whether pretraining helps against {baseline} ({names.count(n, 'comparison')})."
    ruled_out = counts["no gain"] + counts["worse"]
    text = f"No gain over {baseline} was shown in {names.count(n, 'comparison')}. A gain of {results.compare.smallest_gain:g} or more"
    rest = f"; {counts['cannot tell']} cannot be told" if counts["cannot tell"] else ""
    return f"{text} is ruled out in {ruled_out}{rest}.{worse}"


def _named(results: Results, dataset: str, row: Any) -> str:
    patients = names.with_labels(row.budget, results.n_labelled(dataset, row.budget))
    return f"{results.names.arm(row.arm)} with {patients} ({names.number(row.diff, sign=True)})"


def detectable(asked: list[Any]) -> str:
    """What could have been shown where nothing can be told."""
    sizes = [
        row.smallest_detectable for row in asked
        if row.verdict == "cannot tell" and row.smallest_detectable == row.smallest_detectable
    ]  # fmt: skip
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
        if "training-variance-unknown" in split_flags(row.flags):
            text += "; too few trainings to judge by"
        elif row.smallest_detectable == row.smallest_detectable:
            text += f"; a difference of {names.number(row.smallest_detectable)} could have been shown"
    return {
        "arm": results.names.arm(row.arm),
        "verdict": row.verdict,
        "against": results.names.arm(row.baseline_arm),
        "numbers": text,
    }


def _cell(row: Any) -> dict[str, str] | None:
    return None if row is None else {"verdict": row.verdict, "diff": names.number(row.diff, sign=True)}


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
