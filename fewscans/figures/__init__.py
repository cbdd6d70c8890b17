"""The figures, one file each: `draw(results, dataset, look)` gives a matplotlib figure and the numbers behind it.

Names are fixed and do not depend on the data, so that a workflow can declare the files before there are any. This
module imports nothing heavy; `draw_all` does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

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
    import importlib

    from fewscans.figures import style

    made: dict[str, Path] = {}
    with style.look(settings.palette) as look:
        for name in NAMES:
            module = importlib.import_module(f"fewscans.figures.{name}")
            options = {"method": settings.embedding} if name == "embeddings" else {}
            figure, numbers = module.draw(results, dataset, look, **options)
            made[name] = style.save(figure, numbers, Path(folder, dataset, name))
    return made
