"""What methods that fill in hide and what they put in its place."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from fewscans.figures import style, tiles
from fewscans.figures.inputs import Results


def draw(results: Results, dataset: str, look: style.Look) -> tuple[Figure, pd.DataFrame]:
    """A block per masked encoder: the scan, what the network saw of it, and what it made of that."""
    blocks, numbers = tiles.read(
        results, dataset, "reconstructions", ("scan", "masked", "filled in")
    )
    if not blocks:
        return style.words(
            "No method that fills in (MAE, SimMIM, SparK, Models Genesis) was run, so there are no reconstructions."
        ), numbers
    return tiles.sheet(blocks), numbers
