"""Whether the scans have what a recipe asks of them, told before any pixel is read."""

from __future__ import annotations

import pandas as pd

from fewscans.config.stages import NormaliseParams
from fewscans.convert import log
from fewscans.convert.paths import shown
from fewscans.errors import Problems

HU = "HU"


def check_scans(kept: pd.DataFrame, params: NormaliseParams) -> None:
    """Rows of the index that will be stored: refused, or a warning where the recipe may mean something else by them.

    Raises
    ------
    UserError
        Scans lack a spacing, are no CT for windows in HU, or are CT for `n4`; all are listed, with ways out.
    """
    recipe = params.recipe
    problems = Problems(f"data set {params.dataset}: scans that the recipe does not fit")
    is_hu = kept["unit"] == HU

    def refuse(bad: pd.Series, key: str, message: str) -> None:
        if bad.any():
            problems.add(
                key, f"{int(bad.sum())} scans {message}{shown(kept.loc[bad, 'path'].tolist())}"
            )

    if recipe.spacing_mm is not None:
        refuse(
            kept["spacing_mm"].map(len) != recipe.ndim, "spacing_mm",
            "do not say how large a pixel is. Leave `spacing_mm` out, convert them from a format that says it, or list "
            "them in `exclude`:",
        )  # fmt: skip
    if recipe.n4 is not None:
        refuse(
            is_hu,
            "n4",
            "are CT, which has no bias field. Leave `n4` out, or list them in `exclude`:",
        )
    if recipe.normalise == "window" and recipe.windows is not None:
        # A picture of 8 bits, or a file that names another unit, holds no HU.
        other = ~is_hu & ((kept["dtype"] == "uint8") | (kept["unit"] != ""))
        refuse(
            other, "windows",
            "are not in HU. Take `percentile`, a `window_hu` in their own values, or list them in `exclude`:",
        )  # fmt: skip
        _warn(
            kept[~is_hu & ~other],
            f"the windows {', '.join(recipe.windows)} take their values for HU",
            params,
        )
    elif recipe.normalise == "window":
        low, high = recipe.window_hu
        _warn(
            kept[~is_hu], f"`window_hu` {low:g} to {high:g} is taken in their stored values", params
        )
    if recipe.foreground == "mask":
        refuse(
            kept["mask_labels"] == 0 if "mask_labels" in kept else pd.Series(True, kept.index),
            "foreground",
            "have no mask with a label. Take `foreground: true`, give them a `mask` in the table, or list them in "
            "`exclude`:",
        )
    problems.raise_if_any()


def _warn(scans: pd.DataFrame, what: str, params: NormaliseParams) -> None:
    if paths := scans["path"].tolist():
        log.warning(
            "%s: %d scans do not say that they are in HU: %s, e.g. %r",
            params.dataset, len(paths), what, paths[0],
        )  # fmt: skip
