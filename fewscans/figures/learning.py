"""Learning curves of pretraining: loss, two gauges of collapse, and a probe of neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import names, style
from fewscans.figures.inputs import Results

COLUMNS = [
    "dataset",
    "encoder",
    "recipe",
    "fold",
    "seed",
    "step",
    "epoch",
    "loss",
    "embedding_std",
    "effective_rank",
    "knn_balanced_accuracy",
]
GAUGES = {
    "loss": "loss", "embedding_std": "embedding SD", "effective_rank": "effective rank",
    "knn_balanced_accuracy": "kNN bal. acc.",
}  # fmt: skip
# From collapse upwards, so that a flat line well above it looks flat.
FLOOR = {"embedding_std": 0.0, "effective_rank": 1.0}
PER_ROW, POINTS, LEGEND_CHARS = 6, 200, 26


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """A row per method (losses of two methods cannot be compared), a thin line per fold and seed."""
    histories = _read(results, dataset)
    if histories.empty:
        text = "No encoder was pretrained here, so there are no pretraining curves."
        return style.words(text), pd.DataFrame(columns=COLUMNS)
    rows = _rows(results, histories)
    # Where nothing is labelled there are no neighbours to ask.
    gauges = [gauge for gauge in GAUGES if histories[gauge].notna().any()]
    # A row is as high as its legend, which has a column of its own where any method has several encoders.
    legend = any(len(pairs) > 1 for _, pairs in rows)
    heights = [max(1.35, 0.3 + sum(0.135 * label.count("\n") + 0.17 for label in _labels(results, pairs)))
               if len(pairs) > 1 else 1.35 for _, pairs in rows]  # fmt: skip
    figure = style.new(style.WIDE_INCH, sum(heights) + 0.25)
    ratios = {"width_ratios": [1] * len(gauges) + [1.05] * legend, "height_ratios": heights}
    grid = figure.subplots(len(rows), len(gauges) + legend, squeeze=False, gridspec_kw=ratios)
    for unused in grid[:, len(gauges) :].flat:
        unused.set_axis_off()
    parts = dict(list(histories.groupby(["encoder", "recipe"])))
    for axes, (title, pairs) in zip(grid, rows, strict=True):
        style.title(axes[0], title, style.WIDE_INCH)
        _row(axes, gauges, pairs, parts, results, look)
    for one in grid[-1, : len(gauges)]:
        one.set_xlabel("epoch")
    return figure, histories[COLUMNS]


def _read(results: Results, dataset: str) -> pd.DataFrame:
    """Histories of all pretrained encoders, thinned to what a figure can show."""
    parts = []
    for encoder, recipe, fold, seed, folder in results.encoder_folders(dataset):
        history = results.history(folder)
        if history is not None and len(history):
            keep = np.unique(
                np.linspace(0, len(history) - 1, min(POINTS, len(history))).round().astype(int)
            )
            parts.append(
                history.iloc[keep].assign(
                    dataset=dataset, encoder=encoder, recipe=recipe, fold=fold, seed=seed
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _rows(results: Results, histories: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, encoders with recipes) of each row: one per method, split where it has many."""
    methods: dict[str, list[tuple[str, str]]] = {}
    for encoder, recipe in dict.fromkeys(zip(histories.encoder, histories.recipe, strict=True)):
        methods.setdefault(results.plan["encoders"][encoder]["method"], []).append(
            (encoder, recipe)
        )
    rows = []
    for method, pairs in methods.items():
        for start in range(0, len(pairs), PER_ROW):
            part = pairs[start : start + PER_ROW]
            lone = len(pairs) == 1
            more = " (continued)" if start else ""
            rows.append(
                (results.names.pair(*part[0]) if lone else names.method(method) + more, part)
            )
    return rows


def _row(
    axes: np.ndarray, gauges: list, pairs: list, parts: dict, results: Results, look: style.Look
) -> None:
    handles, labels = [], _labels(results, pairs)
    for i, pair in enumerate(pairs):
        kind = {"color": look.colour(i), "linestyle": style.LINES[i % len(style.LINES)]}
        for _, training in parts[pair].groupby(["fold", "seed"]):
            for one, gauge in zip(axes, gauges, strict=False):
                _curve(one, training, gauge, kind)
        handles.append(style.handle(labels[i], **kind))
    for one, gauge in zip(axes, gauges, strict=False):
        one.set_ylabel(GAUGES[gauge])
        one.grid(axis="y")
        one.margins(x=0.02)
        values = pd.concat([parts[pair][gauge] for pair in pairs]).dropna()
        if gauge in FLOOR and len(values):
            low = FLOOR[gauge]
            one.set_ylim(min(low, values.min()), max(values.max() * 1.1, low + 0.1))
        elif (
            gauge == "knn_balanced_accuracy"
        ):  # all there can be: its ups and downs are mostly noise
            one.set_ylim(0, 1)
    if len(pairs) > 1:
        axes[-1].legend(handles, labels, loc="center left", borderaxespad=0)


def _labels(results: Results, pairs: list) -> list[str]:
    return [style.wrap(style.shown(results.names.pair(*pair), 80), LEGEND_CHARS) for pair in pairs]


def _curve(axes: Axes, training: pd.DataFrame, gauge: str, kind: dict) -> None:
    known = training.dropna(subset=[gauge])
    # A lone point draws no line.
    marker = "." if len(known) == 1 else None
    axes.plot(known.epoch, known[gauge], linewidth=0.9, alpha=0.75, marker=marker, **kind)
