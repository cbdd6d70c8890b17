"""Performance against the label budget, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import grid, names, style
from fewscans.figures.inputs import Results

COLUMNS = [
    "dataset",
    "panel",
    "arm",
    "role",
    "protocol",
    "budget",
    "n_labelled_patients",
    "value",
    "low",
    "high",
]


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """One panel per encoder; x: labelled patients, y: the chosen metric, bands: its interval."""
    panels = grid.panels_of(results, dataset)
    budgets = results.budgets(dataset)
    if not panels:
        return style.words("No scores, so no curve against the label budget."), pd.DataFrame(
            columns=COLUMNS
        )
    scores = results.score(dataset).set_index(["arm", "budget"]).sort_index()
    majority = [arm for arm in results.scored_arms(dataset) if grid.is_majority(results, arm)]
    rows: list[dict[str, object]] = []

    figure, axes = grid.figure_of(panels, 1.75)
    for panel, one in zip(panels, axes, strict=True):
        lines = [
            (arm, "majority", dict(grid.CHANCE), 0.0) for arm in majority if arm not in panel.arms
        ]
        lines += [(arm, "baseline", dict(grid.BASELINE), 0.0) for arm in panel.baselines]
        shift = np.linspace(-0.09, 0.09, len(panel.arms)) if len(panel.arms) > 1 else [0.0]
        lines += [
            (arm, "arm", look.protocol(results.arms[arm]["protocol"]), dx)
            for arm, dx in zip(panel.arms, shift, strict=True)
        ]
        for arm, role, kind, dx in lines:
            found = _line(one, scores, arm, budgets, kind, dx, band=role != "majority")
            rows += [
                {"dataset": dataset, "panel": panel.title, "arm": arm, "role": role, **row}
                for row in found
            ]
        _budget_axis(one, results, dataset, budgets)
    grid.left_and_bottom(axes, "labelled patients", names.metric(results.metric))
    chance = bool(majority) and any(arm not in panel.arms for panel in panels for arm in majority)
    style.legend_below(figure, grid.handles(results, panels, look, chance))
    frame = pd.DataFrame(rows)
    frame["protocol"] = [results.arms[arm]["protocol"] for arm in frame.arm]
    frame["n_labelled_patients"] = [results.n_labelled(dataset, budget) for budget in frame.budget]
    return figure, frame[COLUMNS]


def _line(
    axes: Axes,
    scores: pd.DataFrame,
    arm: str,
    budgets: list[str],
    kind: dict,
    shift: float,
    *,
    band: bool,
) -> list[dict[str, object]]:
    """Draw an arm; budgets that it has no score for are left out."""
    at = [i for i, budget in enumerate(budgets) if (arm, budget) in scores.index]
    if not at:
        return []
    values = scores.loc[[(arm, budgets[i]) for i in at], ["value", "low", "high"]].to_numpy(
        dtype=float
    )
    x = np.array(at, dtype=float) + shift
    value, low, high = values.T
    if not band and len(at) == 1:
        axes.axhline(value[0], **kind)  # a line through one point cannot be seen
    else:
        axes.plot(x, value, **kind)
    if band:
        axes.fill_between(x, low, high, color=kind["color"], alpha=0.13, linewidth=0)
        # A band has no width at a lone budget, and bands hide each other's ends: whiskers say the interval exactly.
        axes.vlines(x, low, high, color=kind["color"], linewidth=0.8, alpha=0.8)
    return [
        {"budget": budgets[i], "value": v, "low": lo, "high": hi}
        for i, (v, lo, hi) in zip(at, values, strict=True)
    ]


def _budget_axis(axes: Axes, results: Results, dataset: str, budgets: list[str]) -> None:
    ticks = []
    for name in budgets:
        n = results.n_labelled(dataset, name)
        same = name.isdigit() or n != n
        ticks.append(names.budget(name) if same else f"{names.budget(name)}\n({n:.0f})")
    axes.set_xticks(range(len(budgets)), ticks)
    axes.set_xlim(-0.35, len(budgets) - 0.65)
    axes.grid(axis="y")
