"""Small multiples: one panel per encoder, its protocols in colour, the baseline in grey in each.

Ten overlaid intervals are mud. Against the same grey reference in every panel, forty arms can be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import names, style
from fewscans.figures.inputs import Results

BASELINE = {
    "color": "#555555",
    "linestyle": (0, (5, 1.5)),
    "marker": "D",
    "markersize": 3.0,
    "linewidth": 1.0,
}
CHANCE = {"color": "#999999", "linestyle": ":", "linewidth": 1.0}


@dataclass
class Panel:
    """An encoder on a recipe: its arms, and the arms they are compared with."""

    title: str
    arms: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)


def panels_of(results: Results, dataset: str) -> list[Panel]:
    """Panels of a data set, self-supervised encoders first. References get one only where nothing else would."""
    scored = results.scored_arms(dataset)
    found: dict[tuple[str, str], Panel] = {}
    references = [arm for arm in scored if _is_reference(results, arm)]
    for arm in [arm for arm in scored if arm not in references] or scored:
        entry = results.arms[arm]
        key = entry["encoder"], entry["recipe"]
        panel = found.setdefault(key, Panel(results.names.pair(*key)))
        panel.arms.append(arm)
        against = entry.get("baseline_arm")
        if against in scored and against not in panel.baselines:
            panel.baselines.append(against)
    return list(found.values())


def _is_reference(results: Results, arm: str) -> bool:
    return bool(results.arms[arm]["is_baseline"]) or is_majority(results, arm)


def is_majority(results: Results, arm: str) -> bool:
    """Whether the arm looks at no image."""
    return results.plan["encoders"][results.arms[arm]["encoder"]]["method"] == "majority"


def figure_of(panels: list[Panel], height_inch: float) -> tuple[Figure, list[Axes]]:
    """A figure with an axes per panel, all on one scale; `height_inch` is that of a row."""
    n = len(panels)
    columns = style.columns_of(n, 4)
    rows = -(-n // columns)
    width = max(style.NARROW_INCH, min(style.WIDE_INCH, 1.9 * columns + 0.6))
    figure = style.new(width, height_inch * rows + 0.45)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for axes in flat[n:]:
        axes.set_visible(False)
    for i, axes in enumerate(flat[:n]):
        # The panel above an empty place is the last of its column.
        axes.tick_params(labelbottom=i + columns >= n, labelleft=i % columns == 0)
        style.title(axes, style.shown(panels[i].title, 80), (width - 0.5) / columns)
    return figure, flat[:n]


def left_and_bottom(axes: list[Axes], x: str, y: str) -> None:
    """Axis labels where tick labels are, and nowhere else."""
    for one in axes:
        if one.xaxis.get_tick_params()["labelbottom"]:
            one.set_xlabel(x)
        if one.yaxis.get_tick_params()["labelleft"]:
            one.set_ylabel(y)


def handles(results: Results, panels: list[Panel], look: style.Look, chance: bool) -> list[Any]:
    """Legend entries: protocols in use, the baseline, the constant predictor."""
    protocols = dict.fromkeys(
        results.arms[arm]["protocol"] for panel in panels for arm in panel.arms
    )
    made = [
        style.handle(names.protocol(p), **look.protocol(p))
        for p in style.PROTOCOLS
        if p in protocols
    ]
    if any(panel.baselines for panel in panels):
        made.append(style.handle(f"baseline ({results.baseline_title})", **BASELINE))
    if chance:
        made.append(style.handle("majority class", **CHANCE))
    return made
