"""Forest plot: difference of each arm from its baseline, with interval and verdict, a panel per budget."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import names, style
from fewscans.figures.inputs import Results

COLUMNS = ["dataset", "arm", "baseline_arm", "budget", "diff", "low", "high", "smallest_detectable", "verdict"]
PER_ROW = 3

# Shape and filling say the verdict without colour.
VERDICTS = {
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
    known = contrasts.set_index(["arm", "budget"]).sort_index()
    columns = min(PER_ROW, len(budgets))
    rows = -(-len(budgets) // columns)
    width = style.WIDE_INCH if columns > 1 else 4.6
    figure = style.new(width, rows * (0.17 * len(arms) + 0.75) + 0.3)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for unused in flat[len(budgets) :]:
        unused.set_visible(False)
    for i, (budget, axes) in enumerate(zip(budgets, flat, strict=False)):
        _panel(axes, known, arms, budget, results, look)
        n = results.n_labelled(dataset, budget)
        style.title(axes, f"{names.budget(budget, n)} labelled patients", 30)
        axes.tick_params(labelbottom=i + columns >= len(budgets), labelleft=i % columns == 0)
        if i + columns >= len(budgets):
            axes.set_xlabel(f"difference in {names.metric(results.metric)}\nfrom {results.baseline_title}")
    labels = [style.wrap(style.shown(results.names.arm(arm), 70), 46) for arm in arms]
    flat[0].set_yticks(range(len(arms)), labels)
    flat[0].set_ylim(len(arms) - 0.4, -0.6)
    style.legend_below(figure, _handles(contrasts, look))
    numbers = contrasts[contrasts.arm.isin(arms)].copy()
    numbers["order"] = [arms.index(arm) * len(budgets) + budgets.index(b) for arm, b in zip(numbers.arm, numbers.budget, strict=True)]
    return figure, numbers.sort_values("order")[COLUMNS]


def _panel(
    axes: Axes, known: pd.DataFrame, arms: list[str], budget: str, results: Results, look: style.Look
) -> None:
    gain = results.compare.smallest_gain
    axes.axvspan(-gain, gain, color="#f0f0f0", linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    axes.axvline(gain, color=style.MUTED, linewidth=0.7, linestyle=":", zorder=1)
    for y, arm in enumerate(arms):
        if (arm, budget) not in known.index:
            continue
        row = known.loc[(arm, budget)]
        kind = VERDICTS[row.verdict]
        colour = look.colour(kind["colour"])
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=2)
        face = colour if kind["filled"] else "white"
        axes.plot(row["diff"], y, marker=kind["marker"], color=colour, markerfacecolor=face, markersize=4.6, zorder=3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    encoders = [(results.arms[arm]["encoder"], results.arms[arm]["recipe"]) for arm in arms]
    for y in range(1, len(arms)):
        if encoders[y] != encoders[y - 1]:
            axes.axhline(y - 0.5, color=style.FAINT, linewidth=0.5, zorder=0)


def _handles(contrasts: pd.DataFrame, look: style.Look) -> list:
    found = set(contrasts.verdict)
    return [
        style.handle(
            verdict, color=look.colour(kind["colour"]), marker=kind["marker"], linestyle="-", markersize=4.6,
            markerfacecolor=look.colour(kind["colour"]) if kind["filled"] else "white",
        )
        for verdict, kind in VERDICTS.items()
        if verdict in found
    ]  # fmt: skip
