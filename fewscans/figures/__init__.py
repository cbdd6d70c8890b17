"""The figures, one file each: `draw(results, dataset, look)` gives a matplotlib figure and the numbers behind it.

Names are fixed and do not depend on the data, so that a workflow can declare the files before there are any. This
module imports nothing heavy; `draw_all` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewscans.config import ReportSettings
    from fewscans.figures.inputs import Results

# In the order in which a reader wants them.
NAMES = ("forest", "budget", "roc", "learning", "embeddings", "views", "reconstructions")
SUFFIXES = ("pdf", "png", "csv")


def paths_of(folder: str | os.PathLike[str], dataset: str) -> list[Path]:
    """Every file that `draw_all` writes for `dataset`: ``FOLDER/DATASET/NAME.{pdf,png,csv}``."""
    return [Path(folder, dataset, f"{name}.{suffix}") for name in NAMES for suffix in SUFFIXES]


def draw_all(
    results: Results, dataset: str, folder: str | os.PathLike[str], settings: ReportSettings
) -> dict[str, Path]:
    """Draw every figure of `dataset` below `folder`; name -> PNG.

    All are always made; where there is nothing to show, the figure says so in words.
    """
    # By name, not in a loop: the digest of the report's code follows these imports as text.
    from fewscans.figures import (
        budget,
        embeddings,
        forest,
        learning,
        reconstructions,
        roc,
        style,
        views,
    )  # fmt: skip

    draw: dict[str, Callable[..., Any]] = {
        "forest": forest.draw, "budget": budget.draw, "roc": roc.draw, "learning": learning.draw,
        "embeddings": partial(embeddings.draw, method=settings.embedding), "views": views.draw,
        "reconstructions": reconstructions.draw,
    }  # fmt: skip
    made: dict[str, Path] = {}
    with style.look(settings.palette) as look:
        for name in NAMES:
            figure, numbers = draw[name](results, dataset, look)
            made[name] = style.save(figure, numbers, Path(folder, dataset, name))
    return made
