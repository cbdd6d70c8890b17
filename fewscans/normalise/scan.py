"""One scan by one recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fewscans import geometry
from fewscans.config.recipe import RecipeSettings
from fewscans.normalise.bias import correct_bias
from fewscans.normalise.foreground import box_of, foreground_mask
from fewscans.normalise.intensity import equalise, intensity_range, match_channels
from fewscans.normalise.nyul import Landmarks, has_scale, scan_landmarks, standardise

Box = tuple[tuple[int, int], ...]


class Normalised(NamedTuple):
    """A scan as a store has it."""

    x: npt.NDArray[np.float64]
    """[channels, *axes] in [0, 1]."""
    spacing_mm: tuple[float, ...]
    """Of `x`; empty where it is not known."""
    bounds: tuple[float, float]
    """Physical values of 0 and 1 (after `n4`); not a number where no one line leads back (several windows, CLAHE,
    landmarks)."""
    box: Box | None
    """Of the foreground in the source: (first, behind the last) pixel along each axis; None without `foreground`."""


def normalise_scan(
    image: npt.NDArray[np.generic],
    spacing_mm: Sequence[float],
    recipe: RecipeSettings,
    labels: npt.NDArray[np.unsignedinteger] | None = None,
    standard: Landmarks | None = None,
) -> Normalised:
    """`image` [C, *axes] in physical units (numbers of any type), by all steps of `recipe`; `labels` [*axes]: its mask.

    `standard` [11] are the landmarks that a recipe with `nyul` was fitted to. A scan without a scale of its own is
    then scaled by its smallest and largest value.

    Raises
    ------
    ValueError
        The recipe has `spacing_mm`, the image none; it crops to a mask, and there is none, or an empty one; or it is
        fitted, and `standard` is missing.
    """
    if recipe.is_fitted and standard is None:
        raise ValueError("the recipe is fitted, and there are no landmarks")
    ready, mask, box = _prepared(match_channels(image, recipe.channels), recipe, labels)
    inside = mask if recipe.in_foreground else None
    low, high = intensity_range(ready, recipe, inside)
    curve = None
    if standard is not None and has_scale(own := scan_landmarks(ready, inside)):
        curve = own, standard
    resized, spacing = _resampled(ready, spacing_mm, recipe)
    if low == high:
        level = 0.5 if recipe.normalise == "zscore" else 0.0
        return Normalised(np.full(recipe.shape.full, level), spacing, (low, high), box)
    windows = recipe.bounds_hu if recipe.normalise == "window" else ()
    if recipe.clahe is not None:
        scaled = _scaled(resized, low, high, windows, curve)
        x = equalise(scaled, recipe.clahe, apart=len(windows) > 1)
        x = geometry.pad_to_shape(x, recipe.shape.axes, float(x.min()))
    else:
        short = resized.shape[1:] != recipe.shape.axes
        padded = geometry.pad_to_shape(
            resized, recipe.shape.axes, float(ready.min()) if short else 0.0
        )
        x = _scaled(padded, low, high, windows, curve)
    leads_back = recipe.clahe is None and len(windows) < 2 and curve is None
    return Normalised(x, spacing, (low, high) if leads_back else (math.nan, math.nan), box)


def landmarks_of(
    image: npt.NDArray[np.generic],
    recipe: RecipeSettings,
    labels: npt.NDArray[np.unsignedinteger] | None = None,
) -> Landmarks:
    """[11] landmarks of a scan's foreground, after the steps of `recipe` before intensity; arguments as above."""
    ready, mask, _ = _prepared(match_channels(image, recipe.channels), recipe, labels)
    return scan_landmarks(ready, mask)


def _prepared(
    image: npt.NDArray[np.generic],
    recipe: RecipeSettings,
    labels: npt.NDArray[np.unsignedinteger] | None,
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None, Box | None]:
    """(image after `n4` and `foreground`, mask of its foreground where a step wants one, box)."""
    if recipe.n4 is None and not recipe.foreground and not recipe.in_foreground:
        return image, None, None
    ct, masked = recipe.normalise == "window", recipe.foreground == "mask"
    if recipe.n4 is not None:
        # The field is that of the whole body, whatever is cropped to.
        gray = match_channels(image, 1)[0]
        image = correct_bias(image, gray, foreground_mask(gray, ct), recipe.n4)
    if masked and (labels is None or not labels.any()):
        raise ValueError("a mask is to be cropped to, and there is none, or an empty one")
    mask = (
        labels > 0
        if masked and labels is not None
        else foreground_mask(match_channels(image, 1)[0], ct)
    )
    if not recipe.foreground:
        return image, mask, None
    box = box_of(mask, recipe.margin)
    inside = tuple(slice(*sides) for sides in box)
    return image[(slice(None), *inside)], mask[inside], box


def _resampled(
    image: npt.NDArray[np.generic], spacing_mm: Sequence[float], recipe: RecipeSettings
) -> tuple[npt.NDArray[np.float64], tuple[float, ...]]:
    """(image at its new resolution and within the store's shape, not padded yet; its spacing)."""
    shape = image.shape[1:]
    if recipe.pitch_mm is not None or recipe.fit == "crop":
        samples, pitch, spacing = geometry.centred_grid(
            shape, spacing_mm, recipe.size, recipe.pitch_mm
        )
        return geometry.resize(image, samples, pitch), spacing
    fitted = geometry.fitted_shape(shape, spacing_mm, recipe.size, recipe.fit)
    return geometry.resize(image, fitted), geometry.fitted_spacing(shape, spacing_mm, fitted)


def _scaled(
    image: npt.NDArray[np.floating],
    low: float,
    high: float,
    windows: Sequence[tuple[float, float]],
    curve: tuple[Landmarks, Landmarks] | None,
) -> npt.NDArray[np.float64]:
    """`image` with `low` at 0 and `high` at 1, each channel by its own of `windows`, or by landmarks; clipped."""
    if curve is not None:
        return standardise(image, *curve)
    if len(windows) < 2:
        return np.clip((image - low) / (high - low), 0.0, 1.0)
    pairs = zip(image, windows, strict=True)
    return np.stack([np.clip((one - lo) / (hi - lo), 0.0, 1.0) for one, (lo, hi) in pairs])
