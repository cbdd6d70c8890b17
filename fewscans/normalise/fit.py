"""What a recipe is fitted on: the training scans of a fold and no others; labels play no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import NormaliseParams
from fewscans.contracts import read_table
from fewscans.convert import log
from fewscans.errors import UserError
from fewscans.files import digest
from fewscans.normalise import nyul
from fewscans.normalise.parallel import each
from fewscans.normalise.scan import landmarks_of

ReadPixels = Callable[[Any], npt.NDArray[np.generic]]
ReadMask = Callable[[Any], npt.NDArray[np.unsignedinteger] | None]


def fit(
    kept: pd.DataFrame,
    read_pixels: ReadPixels,
    read_mask: ReadMask,
    params: NormaliseParams,
    folds: Sequence[Path],
    workers: int = 1,
) -> dict[str, Any]:
    """What store.json says under `fitted`: the landmarks, and whose they are.

    Parameters
    ----------
    kept
        Rows of the index that will be stored.
    folds
        See `chosen`.

    Raises
    ------
    UserError
        There is no such fold, or no scan to fit on.
    """
    rows = kept if (scans := chosen(params, folds)) is None else kept[kept["scan"].isin(scans)]
    rows = rows.sort_values("scan")
    landmarks = partial(_landmarks, read_pixels, read_mask, params.recipe)
    found = dict(zip(rows["scan"], each(landmarks, rows.to_dict("records"), workers), strict=True))
    used = {scan: own for scan, own in found.items() if nyul.has_scale(own)}
    whose = f"data set {params.dataset}" + (f", fold {params.fold}" if params.fold else "")
    if not used:
        raise UserError(
            f"{whose}: no scan to fit `normalise: {params.recipe.normalise}` on: {len(rows)} training scans, all of"
            " them constant. Take another `normalise`."
        )
    log.info("%s: landmarks of %d scans, %d constant", whose, len(used), len(found) - len(used))
    pixels = dict(zip(rows["scan"], rows["pixel_sha256"], strict=True))
    return {
        "fold": params.fold,
        "percentiles": list(nyul.PERCENTILES),
        "landmarks": nyul.standard_landmarks(list(used.values())).tolist(),
        "n": len(used),
        "constant": len(found) - len(used),
        "digest": digest([[scan, pixels[scan]] for scan in used]),
        "scans": list(used),
    }


def _landmarks(
    read_pixels: ReadPixels, read_mask: ReadMask, recipe: RecipeSettings, row: dict[str, Any]
) -> nyul.Landmarks:
    return landmarks_of(read_pixels(row), recipe, read_mask(row))


def chosen(params: NormaliseParams, folds: Sequence[Path]) -> set[str] | None:
    """Scans to fit on, by tables of folds; None for all scans, where there is no table.

    With a fold: its training scans, or of fold `all` everything that is trained on or tested. Without one the data set
    is a pool, of all data sets whose tables `folds` are: scans that join each of their folds, so that no copy of any
    test scan is among them.

    Raises
    ------
    UserError
        The table has no such fold, or no table is given with a fold.
    """
    if not folds:
        if params.fold is not None:
            raise UserError(f"fold {params.fold}: --folds is missing: whose scans may be seen?")
        return None
    tables = pd.concat([read_table(path, "folds") for path in folds], keys=range(len(folds)))
    if params.fold is None:
        joins = (tables["role"] == "pool").groupby(tables["scan"]).agg(["all", "size"])
        everywhere = tables.groupby(level=0)["fold"].nunique().sum()
        return set(joins.index[joins["all"] & (joins["size"] == everywhere)])
    if params.fold == "all":
        return set(tables.loc[tables["role"].isin(["train", "test"]), "scan"])
    own = tables[tables["fold"] == params.fold]
    if own.empty:
        known = ", ".join(sorted(set(tables["fold"])))
        raise UserError(f"no fold '{params.fold}' of data set {params.dataset}. Known: {known}")
    return set(own.loc[own["role"] == "train", "scan"])
