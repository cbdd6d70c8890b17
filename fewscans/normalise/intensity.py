"""Intensities to [0, 1].

Rules:

- ``percentile``: two percentiles of the scan become 0 and 1.
- ``window``: two physical values (HU) become 0 and 1, the same for every scan; or two for each channel.
- ``minmax``: smallest and largest value of the scan.
- ``nyul``: see `fewscans.normalise.nyul`.
- ``zscore``: mean becomes 0.5 and a standard deviation 1/6, so that [0, 1] holds three to either
  side.

What lies outside is clipped. Where percentiles coincide (a nearly empty image), smallest and
largest value stand in; a constant image becomes 0, by `zscore` 0.5. Gray from colour is ITU-R
BT.601 luma.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.config.recipe import RecipeSettings
from fewscans.normalise.order import mean_and_deviation, percentiles

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, section 2.5.1
_FLAT = 1e-6  # less than a step of a store: rounding, which must not be stretched to contrast


def match_channels(image: npt.NDArray[np.generic], channels: int) -> npt.NDArray[np.generic]:
    """[C, ...] -> [channels, ...]: gray is repeated, colour becomes its luma, as float64; itself where both agree."""
    if image.shape[0] == channels:
        return image
    made = np.asarray(image, dtype=np.float64)
    if channels == 1:
        return np.tensordot(np.asarray(_LUMA), made, axes=1)[None]
    return np.repeat(made[:1], channels, axis=0)


def intensity_range(
    image: npt.NDArray[np.generic],
    recipe: RecipeSettings,
    mask: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float]:
    """Physical values that become 0 and 1; equal for a constant image only. Of several windows, the first's.

    Measured within `mask` [*axes], where it is given and the image is not constant there.
    """
    if recipe.normalise == "window":
        return recipe.bounds_hu[0]
    if mask is not None and (inside := values_in(image, mask)).min() < inside.max():
        image = inside
    if recipe.normalise == "percentile":
        inner = percentiles(image, recipe.percentiles)
        if inner[0] < inner[1]:
            return inner[0], inner[1]
    low, high = float(image.min()), float(image.max())
    if recipe.normalise == "zscore":
        mean, deviation = mean_and_deviation(image)
        # Rounding alone can give a constant image a tiny deviation.
        return (mean - 3 * deviation, mean + 3 * deviation) if low < high else (low, low)
    return low, high


def values_in(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """[C, n]: those of `image` [C, *axes] where `mask` is True; by channel, for together numpy lists all places."""
    return np.stack([channel[mask] for channel in image])


def equalise(x: npt.NDArray[np.float64], limit: float, apart: bool) -> npt.NDArray[np.float64]:
    """[C, *axes] in [0, 1] -> the same, by CLAHE (Zuiderveld 1994) with tiles of an eighth of each axis.

    Channels `apart` are equalised one by one. Else they are colours, whose hue and saturation stay: the largest of the
    channels is equalised, and the others follow it.
    """
    if apart or len(x) == 1:
        return np.stack([_clahe(channel, limit) for channel in x])
    value = x.max(axis=0)
    made = _clahe(value, limit)
    return np.where(value > 0, x * (made / np.where(value > 0, value, 1.0)), made)


def _clahe(gray: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.float64]:
    from skimage.exposure import equalize_adapthist

    if np.ptp(gray) < _FLAT:
        return gray
    # An axis of one in front: a volume three or four wide would be taken for colours.
    return equalize_adapthist(gray[None, None], clip_limit=limit)[0, 0]
