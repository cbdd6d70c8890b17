"""Keyed numbers of a view by name: a column each, so that a further family changes none of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewscans.keyed import uniform

# Only ever add at the end.
_NAMES = (
    "area", "aspect", "middle_x", "middle_y", "flip_x", "flip_y", "size", "angle_xy", "brightness", "contrast",
    "gamma", "noise_sd", "noise_start", "blur_sd", "blur_on", "noise_sign", "shift_x", "shift_y",
    "aspect_z", "middle_z", "flip_z", "shift_z", "angle_xz", "angle_yz", "shear_xy", "shear_xz", "shear_yz",
    "elastic", "elastic_start", "window_low", "window_high", "bias", "bias_start", "sharpen", "sharpen_on",
    "shuffle_on", "shuffle_start", "erase_on", "erase_area", "erase_aspect", "erase_aspect_z", "erase_x", "erase_y",
    "erase_z", "erase_start",
)  # fmt: skip
_COLUMN = {name: column for column, name in enumerate(_NAMES)}


class Numbers:
    """Uniform numbers of one view of the scans `keys` [B]; each sample's depend on its own key alone."""

    def __init__(
        self, seed_key: int, epoch: int | NDArray[np.integer], keys: NDArray[np.uint64], view: int
    ) -> None:
        self._drawn = uniform(seed_key, epoch, keys, view, len(_NAMES))

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """[B] in [0, 1)."""
        return self._drawn[:, _COLUMN[name]]

    def signed(self, name: str) -> NDArray[np.float64]:
        """[B] in [-1, 1)."""
        return 2 * self[name] - 1
