"""One intensity scale for all scans: [0, 1], by a rule that looks at one scan at a time.

Rules, over the pixels of the source (so that padding never counts):

- ``percentile``: two percentiles of the scan become 0 and 1.
- ``window``: two physical values (HU) become 0 and 1, the same for every scan.
- ``minmax``: smallest and largest value of the scan.
- ``zscore``: mean becomes 0.5 and a standard deviation 1/6, so that [0, 1] holds three to either
  side.

What lies outside is clipped. Where percentiles coincide (a nearly empty image), smallest and
largest value stand in; a constant image becomes 0, by `zscore` 0.5. Gray from colour is ITU-R
BT.601 luma.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans import geometry
from fewscans.config.models import RecipeSettings
from fewscans.config.stages import NormaliseParams
from fewscans.contracts import COLUMNS, write_table
from fewscans.convert import log
from fewscans.convert.chunks import read_converted
from fewscans.errors import UserError
from fewscans.files import atomic, digest, write_json
from fewscans.store import ROWS, SEAL, VOXELS, voxel_digest

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, section 2.5.1
_STEPS = {"uint8": 255, "int16": 32767}


def match_channels(image: npt.NDArray[np.floating], channels: int) -> npt.NDArray[np.float64]:
    """[C, ...] -> [channels, ...]: gray is repeated, colour becomes its luma."""
    made = np.asarray(image, dtype=np.float64)
    if made.shape[0] == channels:
        return made
    if channels == 1:
        return np.tensordot(np.asarray(_LUMA), made, axes=1)[None]
    return np.repeat(made[:1], channels, axis=0)


def intensity_range(image: npt.NDArray[np.floating], recipe: RecipeSettings) -> tuple[float, float]:
    """Physical values that become 0 and 1; equal for a constant image only."""
    low, high = float(image.min()), float(image.max())
    if recipe.normalise == "window":
        return recipe.window_hu
    if recipe.normalise == "zscore":
        mean, deviation = float(image.mean()), float(image.std())
        # Rounding alone can give a constant image a tiny deviation.
        return (mean - 3 * deviation, mean + 3 * deviation) if low < high else (low, low)
    if recipe.normalise == "percentile":
        inner = np.percentile(image, recipe.percentiles)
        if inner[0] < inner[1]:
            return float(inner[0]), float(inner[1])
    return low, high


def normalise_scan(
    image: npt.NDArray[np.floating], spacing_mm: Sequence[float], recipe: RecipeSettings
) -> tuple[npt.NDArray[np.float64], tuple[float, ...], tuple[float, float]]:
    """(x: [channels, *axes] in [0, 1], spacing_mm of x, physical values of 0 and 1).

    Padding has the value of the scan's darkest pixel.
    """
    image = match_channels(image, recipe.channels)
    low, high = intensity_range(image, recipe)
    fitted = geometry.fitted_shape(image.shape[1:], spacing_mm, recipe.size, recipe.fit)
    spacing = geometry.fitted_spacing(image.shape[1:], spacing_mm, fitted)
    resized = geometry.resize(image, fitted)
    padded = geometry.pad_to_shape(resized, recipe.shape.axes, float(image.min()))
    if low == high:
        return (
            np.full(padded.shape, 0.5 if recipe.normalise == "zscore" else 0.0),
            spacing,
            (low, high),
        )
    return np.clip((padded - low) / (high - low), 0.0, 1.0), spacing, (low, high)


def make_store(
    params: NormaliseParams,
    converted: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
) -> dict[str, Any]:
    """Write the store of a recipe into the folder `out`; facts for the side-car.

    Every scan with status ok is kept, by path. ``store.json`` is written last: where it stands, the
    store is whole.

    Raises
    ------
    UserError
        There is no scan to store, or `converted` is not what convert wrote.
    """
    out, recipe = Path(out), params.recipe
    index, read_pixels = read_converted(converted)
    kept = index[index["status"] == "ok"].reset_index(drop=True)
    if kept.empty:
        raise UserError(f"data set {params.dataset}: no readable scan to make a store of.")
    dtype = "uint8" if set(kept["dtype"]) == {"uint8"} else "int16"
    out.mkdir(parents=True, exist_ok=True)
    (out / SEAL).unlink(missing_ok=True)
    shape = (len(kept), *recipe.shape.full)
    with atomic(out / VOXELS) as temporary:
        voxels = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=f"<{np.dtype(dtype).str[1:]}", shape=shape
        )
        rows = _fill(voxels, kept, read_pixels, recipe)
        voxels.flush()
        del voxels
    frame = pd.DataFrame(rows, columns=list(COLUMNS["rows"]))
    write_table(out / ROWS, "rows", frame, dataset=params.dataset)
    facts = {
        "dataset": params.dataset,
        "recipe": recipe.model_dump(mode="json"),
        "dtype": dtype,
        "n": len(kept),
        "scale": 1 / _STEPS[dtype],
        "intercept": 0.0,
        **recipe.shape.facts(),
        "digest": digest([dtype, list(shape), frame[["scan", "pixel_sha256"]].values.tolist()]),
    }
    write_json(out / SEAL, facts)
    log.info("%s: %d scans, %s, %s", out, len(kept), dtype, recipe.shape)
    return facts


def _fill(
    voxels: npt.NDArray[np.generic],
    kept: pd.DataFrame,
    read_pixels: Callable[[Any], npt.NDArray[np.float32]],
    recipe: RecipeSettings,
) -> list[dict[str, Any]]:
    """Write each scan into its row; what rows.parquet says of it."""
    steps = _STEPS[voxels.dtype.name]
    rows = []
    for number, row in enumerate(kept.to_dict("records")):
        x, spacing, (low, high) = normalise_scan(read_pixels(row), list(row["spacing_mm"]), recipe)
        voxels[number] = np.rint(x * steps)
        rows.append(
            {
                "row": number,
                "scan": row["scan"],
                "shape": list(recipe.shape.axes),
                "spacing_mm": list(spacing),
                "pixel_sha256": voxel_digest(voxels[number]),
                "scale": high - low,
                "intercept": low,
            }
        )
    return rows
