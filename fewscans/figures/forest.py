"""Forest plot: difference of each arm from its baseline, with interval and verdict, a panel per budget."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import names, style
from fewscans.figures.inputs import Results

COLUMNS = [
    "dataset",
    "arm",
    "baseline_arm",
    "budget",
    "diff",
    "low",
    "high",
    "smallest_detectable",
    "verdict",
]
PER_ROW, LABEL_INCH, PANEL_INCH, LINE_INCH, LABEL_CHARS = 3, 2.45, 1.5, 0.165, 30
WIDEST = 0.3  # an interval beyond this, on either side, ends in an arrow

# Shape and filling say the verdict without colour.
VERDICTS: dict[str, dict[str, Any]] = {
    "gain": {"marker": "^", "colour": 2, "filled": True},
    "no gain": {"marker": "s", "colour": 7, "filled": True},
    "worse": {"marker": "v", "colour": 3, "filled": True},
    "cannot tell": {"marker": "o", "colour": 7, "filled": False},
}


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """One row per arm, one panel per budget; the shaded strip is smaller than the smallest gain of interest."""
    contrasts = results.contrast(dataset)
    arms = [arm for arm in results.scored_arms(dataset) if arm in set(contrasts.arm)]
    budgets = [budget for budget in results.budgets(dataset) if budget in set(contrasts.budget)]
    if not arms or not budgets:
        text = "No differences: no arm has a baseline to be compared with (see `compare.baseline`)."
        return style.words(text), pd.DataFrame(columns=COLUMNS)
    groups = _groups(results, arms)
    known = contrasts.set_index(["arm", "budget"]).sort_index()
    columns = style.columns_of(len(budgets), PER_ROW)
    rows = -(-len(budgets) // columns)
    lines = sum(group["lines"] for group in groups)
    width = LABEL_INCH + max(2.2 if columns == 1 else 0, columns * PANEL_INCH) + 0.05
    figure = style.new(width, rows * (LINE_INCH * lines + 0.3) + 0.75)
    ratios = [LABEL_INCH, *[(width - LABEL_INCH) / columns] * columns]
    grid = figure.subplots(rows, columns + 1, width_ratios=ratios, sharey=True, squeeze=False)
    panels = [axes for row in grid for axes in row[1:]]
    for unused in panels[len(budgets) :]:
        unused.set_visible(False)
    for row in grid:
        _labels(row[0], groups)
    limits = _limits(contrasts, results.compare.smallest_gain)
    for i, (budget, axes) in enumerate(zip(budgets, panels, strict=False)):
        _panel(axes, known, groups, budget, results.compare.smallest_gain, limits, look)
        style.title(
            axes, names.labelled(budget, results.n_labelled(dataset, budget)), style.WIDE_INCH
        )
        axes.set_xlim(limits)
        axes.locator_params(axis="x", nbins=5)
        if i + columns >= len(budgets):
            axes.set_xlabel(
                f"difference in {names.metric(results.metric)}\nfrom {results.baseline_title}"
            )
    grid[0, 0].set_ylim(lines + 0.1, -0.1)
    style.legend_below(figure, _handles(contrasts, look))
    return figure, _numbers(contrasts, arms, budgets)


def _groups(results: Results, arms: list[str]) -> list[dict[str, Any]]:
    """Arms of an encoder under one label; `top` and `lines` in lines of text from above."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for arm in arms:
        entry = results.arms[arm]
        key = entry["encoder"], entry["recipe"]
        label = style.wrap(style.shown(results.names.pair(*key), 90), LABEL_CHARS)
        found.setdefault(key, {"label": label, "arms": []})["arms"].append(
            (arm, names.protocol(entry["protocol"]))
        )
    top = 0
    for group in found.values():
        group |= {"top": top, "lines": max(len(group["arms"]), group["label"].count("\n") + 1)}
        top += group["lines"]
    return list(found.values())


def _labels(axes: Axes, groups: list[dict[str, Any]]) -> None:
    """Encoder at the left, once; its protocols at the right, one per line."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    for group in groups:
        # The names stand beside the middle of their own lines.
        axes.text(
            0,
            group["top"] + group["lines"] / 2,
            group["label"],
            va="center",
            fontsize=style.SMALL_PT,
        )
        for y, (_, protocol) in _placed(group):
            axes.text(
                1, y, protocol, ha="right", va="center", fontsize=style.SMALL_PT, color=style.MUTED
            )


def _placed(group: dict[str, Any]) -> list[tuple[float, tuple[str, str]]]:
    spare = (group["lines"] - len(group["arms"])) / 2
    return [(group["top"] + spare + i + 0.5, arm) for i, arm in enumerate(group["arms"])]


def _limits(contrasts: pd.DataFrame, gain: float) -> tuple[float, float]:
    """Of the x axis: all differences, and their intervals as far as one wild interval does not squeeze the others."""
    most = max(WIDEST, 1.5 * contrasts["diff"].abs().max(), 4 * gain)
    low = max(min(contrasts["low"].min(), -gain), -most)
    high = min(max(contrasts["high"].max(), gain), most)
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _panel(
    axes: Axes,
    known: pd.DataFrame,
    groups: list[dict[str, Any]],
    budget: str,
    gain: float,
    limits: tuple[float, float],
    look: style.Look,
) -> None:
    axes.axvspan(-gain, gain, color="#f0f0f0", linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    axes.axvline(gain, color=style.MUTED, linewidth=0.7, linestyle=":", zorder=1)
    for group in groups:
        if group["top"]:
            axes.axhline(group["top"], color=style.FAINT, linewidth=0.5, zorder=0)
        for y, (arm, _) in _placed(group):
            if (arm, budget) not in known.index:
                continue
            row = known.loc[(arm, budget)]
            kind = _kind(row.verdict, look)
            axes.plot([row.low, row.high], [y, y], color=kind["color"], linewidth=1.3, zorder=2)
            for end, beyond, arrow in (
                (limits[0], row.low < limits[0], "<"),
                (limits[1], row.high > limits[1], ">"),
            ):
                if beyond:
                    axes.plot(
                        end, y, arrow, color=kind["color"], markersize=3.5, clip_on=False, zorder=2
                    )
            axes.plot(row["diff"], y, zorder=3, **kind)
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines["left"].set_visible(False)


def _kind(verdict: str, look: style.Look) -> dict[str, Any]:
    kind = VERDICTS.get(verdict, VERDICTS["cannot tell"])
    colour = look.colour(kind["colour"])
    face = colour if kind["filled"] else "white"
    return {"color": colour, "marker": kind["marker"], "markerfacecolor": face, "markersize": 4.6}


def _handles(contrasts: pd.DataFrame, look: style.Look) -> list[Any]:
    found = set(contrasts.verdict)
    return [
        style.handle(verdict, linestyle="-", **_kind(verdict, look))
        for verdict in VERDICTS
        if verdict in found
    ]


def _numbers(contrasts: pd.DataFrame, arms: list[str], budgets: list[str]) -> pd.DataFrame:
    at = {(arm, budget): i for i, (budget, arm) in enumerate((b, a) for b in budgets for a in arms)}
    keys = pd.Series(
        [at.get(key) for key in zip(contrasts.arm, contrasts.budget, strict=True)], contrasts.index
    )
    return contrasts.loc[keys.dropna().sort_values().index, COLUMNS]
