"""What the network is shown in pretraining: scans and their augmented views."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from fewscans.figures import style, tiles
from fewscans.figures.inputs import Results


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """A block per encoder: the scan, and two views of it as drawn in the first epoch."""
    blocks, numbers = tiles.read(results, dataset, "views", ("scan", "view 1", "view 2"))
    if not blocks:
        return style.words(
            "No encoder was pretrained here, so there are no augmented views."
        ), numbers
    return tiles.sheet(blocks), numbers
