"""Tables of the page: the chosen metric with differences and verdicts, and all metrics."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from fewscans.figures import names
from fewscans.figures.inputs import Results


def split_flags(text: object) -> list[str]:
    """Flags of a cell; they are words with hyphens, whatever stands between them."""
    return (
        [] if pd.isna(text) else [flag for flag in re.split(r"[^a-zA-Z0-9_-]+", str(text)) if flag]
    )


def flags_of(results: Results, dataset: str) -> set[str]:
    """All flags of a data set's rows, scores and contrasts."""
    frames = (results.table, results.scores, results.contrasts)
    cells = [
        cell for f in frames if "flags" in f.columns for cell in f["flags"][f["dataset"] == dataset]
    ]
    return {flag for cell in cells for flag in split_flags(cell)}


def main_tables(results: Results, dataset: str) -> list[dict[str, Any]]:
    """A table per unit, the figures' unit first: rows by budget, arms in the order of the figures."""
    scores = results.scores[
        (results.scores.dataset == dataset) & (results.scores.metric == results.metric)
    ]
    units = sorted(dict.fromkeys(scores.unit), key=lambda unit: unit != results.unit)
    return [_table(results, dataset, unit, scores[scores.unit == unit]) for unit in units]


def _table(results: Results, dataset: str, unit: str, scores: pd.DataFrame) -> dict[str, Any]:
    c = results.contrasts
    c = c[(c.dataset == dataset) & (c.metric == results.metric) & (c.unit == unit)]
    value = {(row.arm, row.budget): row for row in scores.itertuples()}
    diff = {(row.arm, row.budget): row for row in c.itertuples()}
    table = results.table[results.table.dataset == dataset]
    table = table[table.unit == unit] if "unit" in table.columns else table
    said = {(row["arm"], row["budget"]): row for row in table.to_dict("records")}
    groups = []
    for budget in results.budgets(dataset):
        rows = [
            _row(
                results,
                arm,
                value[arm, budget],
                diff.get((arm, budget)),
                said.get((arm, budget), {}),
            )
            for arm in results.scored_arms(dataset)
            if (arm, budget) in value
        ]
        groups.append(
            {"budget": names.labelled(budget, results.n_labelled(dataset, budget)), "rows": rows}
        )
    n = scores.n_groups.dropna()
    return {
        "unit": unit,
        "metric": names.metric(results.metric),
        "groups": groups,
        "n_groups": f"{n.max():.0f}" if len(n) else "",
    }


def _row(
    results: Results, arm: str, score: Any, contrast: Any, said: dict[str, Any]
) -> dict[str, Any]:
    flags = split_flags(said.get("flags", score.flags))
    row: dict[str, Any] = {
        "arm": results.names.arm(arm),
        "pretrained": results.is_pretrained(arm),
        "baseline": bool(results.arms[arm]["is_baseline"]),
        "value": names.number(score.value, 3),
        "interval": _interval(score.low, score.high),
        "flags": flags,
        "seconds": seconds(said.get("device_seconds")),
        "verdict": "",
    }  # fmt: skip
    if contrast is not None:
        row |= {
            "diff": names.number(contrast.diff, 3, sign=True),
            "diff_interval": _interval(contrast.low, contrast.high),
            "verdict": contrast.verdict,
            "flags": list(dict.fromkeys([*flags, *split_flags(contrast.flags)])),
            "detectable": "",
        }
        if "training-variance-unknown" not in row["flags"]:
            row["detectable"] = names.number(contrast.smallest_detectable)
    return row


def _interval(low: float, high: float) -> str:
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"({names.number(low, 3)} to {names.number(high, 3)})"


def seconds(value: Any) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``; empty where it is not known."""
    if value is None or pd.isna(value):
        return ""
    for size, unit in ((3600, "h"), (60, "min")):
        if float(value) >= 2 * size:
            return f"{float(value) / size:.1f}{names.NBSP}{unit}"
    return f"{float(value):.1f}{names.NBSP}s"


def all_metrics(results: Results, dataset: str) -> dict[str, Any]:
    """Every metric of every arm and budget, without intervals, in the figures' unit; those per class are left out."""
    s = results.scores
    s = s[(s.dataset == dataset) & (s.unit == results.unit) & s.metric.isin(names.METRICS)]
    columns = [metric for metric in names.METRICS if metric in set(s.metric)]
    value = {(row.arm, row.budget, row.metric): row.value for row in s.itertuples()}
    rows = [
        {
            "budget": names.labelled(budget, results.n_labelled(dataset, budget)),
            "arm": results.names.arm(arm),
            "values": [names.number(value.get((arm, budget, metric)), 3) for metric in columns],
        }
        for budget in results.budgets(dataset)
        for arm in results.scored_arms(dataset)
        if any((arm, budget, metric) in value for metric in columns)
    ]
    return {"columns": [names.metric(metric) for metric in columns], "rows": rows}
