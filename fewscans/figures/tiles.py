"""Sheets of pictures, a block per encoder: rows are stages of a picture, columns are scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewscans.figures import style
from fewscans.figures.inputs import Results

COLUMNS = [
    "dataset",
    "encoder",
    "recipe",
    "fold",
    "seed",
    "picture",
    "row",
    "mean",
    "sd",
    "difference",
]


@dataclass(frozen=True)
class Block:
    """Pictures of an encoder: row label -> [n, C, H, W] uint8."""

    title: str
    rows: dict[str, np.ndarray]


def read(
    results: Results, dataset: str, kind: str, labels: Sequence[str]
) -> tuple[list[Block], pd.DataFrame]:
    """Blocks of the first fold and seed of each encoder that has such pictures, and their gray levels."""
    blocks: dict[tuple[str, str], Block] = {}
    numbers = []
    for encoder, recipe, fold, seed, folder in results.encoder_folders(dataset):
        if (encoder, recipe) in blocks or (arrays := results.pictures(folder, kind)) is None:
            continue
        rows = dict(zip(labels, arrays, strict=False))
        blocks[encoder, recipe] = Block(results.names.pair(encoder, recipe), rows)
        numbers.append(
            _gray_levels(rows).assign(
                dataset=dataset, encoder=encoder, recipe=recipe, fold=fold, seed=seed
            )
        )
    frame = pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=COLUMNS)
    return list(blocks.values()), frame[COLUMNS]


def _gray_levels(rows: dict[str, np.ndarray]) -> pd.DataFrame:
    """Mean and SD of each picture, and its mean absolute difference from the first row; 0 = black, 1 = white."""
    first = next(iter(rows.values())).astype(float) / 255
    found = []
    for label, pictures in rows.items():
        values = pictures.astype(float) / 255
        for i, one in enumerate(values):
            difference = float(np.abs(one - first[i]).mean())
            found.append(
                {
                    "picture": i,
                    "row": label,
                    "mean": one.mean(),
                    "sd": one.std(),
                    "difference": difference,
                }
            )
    return pd.DataFrame(found)


def sheet(blocks: list[Block]) -> Figure:
    """All blocks on one page; the more there are, the fewer scans of each are shown."""
    across = 1 if len(blocks) == 1 else 2 if len(blocks) <= 6 else 3
    most = {1: 8, 2: 4, 3: 3}[across]
    n = min(most, max(len(next(iter(block.rows.values()))) for block in blocks))
    depth = len(blocks[0].rows)
    down = -(-len(blocks) // across)
    # Room for the row labels stands at the left of each block.
    label_inch, gap_inch = 0.56, 0.12
    tile = min(0.95, (style.WIDE_INCH - across * (label_inch + gap_inch)) / (across * n))
    block_inch = label_inch + n * tile + gap_inch
    wide = int((block_inch - 0.1) * style.TITLE_CHARS_PER_INCH)
    titles = [style.wrap(style.shown(block.title, 80), wide) for block in blocks]
    title_inch = 0.12 + 0.13 * max(title.count("\n") + 1 for title in titles)
    width, height = (
        max(style.NARROW_INCH, across * block_inch),
        down * (depth * tile + title_inch + 0.08),
    )
    figure = Figure(figsize=(width, height))
    for b, block in enumerate(blocks):
        left = (b % across) * block_inch + label_inch
        top = height - (b // across) * (depth * tile + title_inch + 0.08)
        figure.text((left - label_inch + 0.06) / width, (top - 0.04) / height, titles[b], va="top", fontweight="bold",
                    fontsize=style.TITLE_PT)  # fmt: skip
        for r, (label, pictures) in enumerate(block.rows.items()):
            y = top - title_inch - (r + 1) * tile
            figure.text((left - 0.06) / width, (y + tile / 2) / height, style.wrap(label, 9), va="center", ha="right",
                        fontsize=style.SMALL_PT)  # fmt: skip
            for i, picture in enumerate(pictures[:n]):
                box = (
                    (left + i * tile) / width,
                    y / height,
                    0.96 * tile / width,
                    0.96 * tile / height,
                )
                _tile(figure.add_axes(box), picture)
    return figure


def _tile(axes: Axes, picture: np.ndarray) -> None:
    axes.set_axis_off()
    image = picture[0] if picture.shape[0] != 3 else np.moveaxis(picture, 0, -1)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
