"""Embeddings of test scans in two dimensions, coloured by class and by patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.errors import UserError
from fewscans.figures import style
from fewscans.figures.inputs import Results

COLUMNS = ["dataset", "encoder", "recipe", "fold", "seed", "scan", "patient", "class", "x", "y"]
# A page holds so many readable pictures; t-SNE costs about a second each.
PER_ROW, MOST, SCANS, FEWEST = 5, 10, 1000, 8
NO_LABEL = "no label"


def draw(
    results: Results, dataset: str, look: style.Look, method: str = "tsne"
) -> tuple[Figure, pd.DataFrame]:
    """A column per encoder: test scans of the first fold and seed, above by class, below by patient.

    Embeddings of different folds come from different networks, so they are never pooled.
    """
    found = _read(results, dataset)
    if not found:
        text = (
            "No embeddings: no encoder that looks at images was run, or none has enough test scans."
        )
        return style.words(text), pd.DataFrame(columns=COLUMNS)
    pictures = [_picture(values, rows, run, method) for run, values, rows in found[:MOST]]
    classes = [
        name
        for name in [*results.classes(dataset), NO_LABEL]
        if any(name in set(p["class"]) for p in pictures)
    ]
    columns = style.columns_of(len(pictures), PER_ROW)
    blocks = -(-len(pictures) // columns)
    width = min(style.WIDE_INCH, max(style.NARROW_INCH, 1.75 * columns))
    side = (width - 0.3) / columns
    figure = style.new(width, blocks * (2 * min(side, 1.75) + 0.35) + 0.4)
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(style.FAINT)
        axes.set_visible(False)
    for i, picture in enumerate(pictures):
        above, below = (
            grid[2 * (i // columns), i % columns],
            grid[2 * (i // columns) + 1, i % columns],
        )
        title = results.names.pair(picture.encoder.iloc[0], picture.recipe.iloc[0])
        style.title(above, style.shown(title, 80), side)
        _by_class(above, picture, classes, look)
        _by_patient(below, picture, look)
        if i % columns == 0:
            above.set_ylabel("by class")
            below.set_ylabel("by patient")
    style.legend_below(figure, _handles(classes, look))
    if len(found) > MOST:
        figure.suptitle(
            f"the first {MOST} of {len(found)} encoders",
            fontsize=style.SMALL_PT,
            x=0.99,
            ha="right",
        )
    return figure, pd.concat(pictures, ignore_index=True)[COLUMNS].assign(dataset=dataset)


def _read(results: Results, dataset: str) -> list[tuple[dict[str, Any], np.ndarray, pd.DataFrame]]:
    """(run, values, rows) of the first fold and seed of each encoder, self-supervised ones first."""
    found: dict[tuple[str, str], Any] = {}
    for run in results.runs(dataset):
        key = run["encoder"], run["recipe"]
        if (
            key not in found
            and (read := results.embedding(run)) is not None
            and len(read[0]) >= FEWEST
        ):
            values, rows = read
            order = np.argsort(rows.scan.to_numpy())[
                :SCANS
            ]  # the key is a hash: a random subset, the same each time
            found[key] = (run, values[order], rows.iloc[order])
    return sorted(
        found.values(),
        key=lambda item: results.plan["encoders"][item[0]["encoder"]]["source"] != "pretrain",
    )


def _picture(
    values: np.ndarray, rows: pd.DataFrame, run: dict[str, Any], method: str
) -> pd.DataFrame:
    flat = MAPS[method](_standardised(values))
    target = rows.target.fillna("").astype(str)
    return pd.DataFrame(
        {
            "dataset": run["dataset"], "encoder": run["encoder"], "recipe": run["recipe"], "fold": run["fold"],
            "seed": run["seed"], "scan": rows.scan.to_numpy(), "patient": rows.patient.astype(str).to_numpy(),
            "class": np.where(target == "", NO_LABEL, target), "x": flat[:, 0], "y": flat[:, 1],
        }
    )  # fmt: skip


def _standardised(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values)
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)


def tsne(values: np.ndarray) -> np.ndarray:
    """t-SNE [n, 2] from the principal components; one thread, so that it is the same each time."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if min(values.shape) > 50:
            values = PCA(50, svd_solver="full").fit_transform(values)
        if values.shape[1] < 2 or not values.any():
            return np.c_[values[:, :1], np.zeros(len(values))]
        perplexity = min(30.0, (len(values) - 1) / 3)
        return TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(
            values
        )


def umap(values: np.ndarray) -> np.ndarray:
    """UMAP [n, 2]; a package of its own."""
    try:
        from umap import UMAP
    except ImportError:
        problem = (
            "'umap' needs the package umap-learn: pip install umap-learn, or set it to 'tsne'."
        )
        raise UserError("report settings", [("report.embedding", problem)]) from None
    return UMAP(n_neighbors=min(15, len(values) - 1), random_state=0, n_jobs=1).fit_transform(
        values
    )


MAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tsne": tsne, "umap": umap}


def _class_kind(i: int, name: str, look: style.Look) -> dict[str, Any]:
    if name == NO_LABEL:
        return {"color": style.FAINT, "marker": "."}
    return {"color": look.colour(i), "marker": style.MARKERS[i % len(style.MARKERS)]}


def _by_class(axes: Axes, picture: pd.DataFrame, classes: list[str], look: style.Look) -> None:
    axes.set_visible(True)
    for i, name in enumerate(classes):
        part = picture[picture["class"] == name]
        axes.scatter(
            part.x, part.y, s=9, linewidths=0.3, edgecolors="white", **_class_kind(i, name, look)
        )


def _by_patient(axes: Axes, picture: pd.DataFrame, look: style.Look) -> None:
    """Scans of a patient are joined and share a colour: where they sit together, the encoder tells patients apart."""
    axes.set_visible(True)
    patients = sorted(set(picture.patient))
    colours = sns.husl_palette(len(patients), s=0.75, l=0.55)
    for patient, colour in zip(patients, colours, strict=True):
        part = picture[picture.patient == patient]
        axes.plot(part.x, part.y, color=colour, linewidth=0.6, alpha=0.7, zorder=1)
        axes.scatter(part.x, part.y, s=6, color=[colour], linewidths=0, zorder=2)


def _handles(classes: list[str], look: style.Look) -> list[Any]:
    return [
        style.handle(style.shown(name, 30), linestyle="", **_class_kind(i, name, look))
        for i, name in enumerate(classes)
    ]
