"""Slices of volumes as scans: what they are called, which are taken, how they are cut. Light: imported at each parse.

A slice is called ``VOLUME#PLANE-NUMBER``, counted from 1 along RAS+: axial from the feet up, coronal from back to
front, sagittal from left to right. It is shown as DICOM shows its plane (rows to the feet or to the back, columns to
the patient's left or to the back), so that slices of an axial series have the pixels of its files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewscans.config.slices import SliceSettings
    from fewscans.convert import Scan

# Plane -> axis of [D, H, W] that its slices are counted along.
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
_SLICE = re.compile(rf"(.+)#({'|'.join(PLANES)})-([1-9][0-9]*)")


def split_slice(path: str) -> tuple[str, str, int]:
    """``p01#axial-12`` -> ``p01``, axial, 12; ``p01`` -> ``p01``, "", 0."""
    found = _SLICE.fullmatch(path)
    return (found[1], found[2], int(found[3])) if found else (path, "", 0)


def slice_path(volume: str, plane: str, number: int) -> str:
    """Path of a slice: ``p01#axial-12``."""
    return f"{volume}#{plane}-{number}"


def chosen(scan: Scan, settings: SliceSettings) -> list[tuple[str, int]]:
    """(plane, number) of the slices that the rule takes of a volume [C, D, H, W], in order.

    Without a mask, or with an empty one, `crossing_mask` takes none.
    """
    axis = PLANES[settings.plane]
    numbers: Sequence[int] = range(1, scan.array.shape[1 + axis] + 1)
    if settings.crossing_mask:
        import numpy as np

        if scan.mask is None:
            return []
        others = tuple(other for other in range(3) if other != axis)
        numbers = (np.flatnonzero(np.any(scan.mask, axis=others)) + 1).tolist()
    numbers = numbers[(settings.every - 1) // 2 :: settings.every] or numbers[:1]
    if settings.central is not None:
        first = max(0, (len(numbers) - settings.central) // 2)
        numbers = numbers[first : first + settings.central]
    return [(settings.plane, number) for number in numbers]


def length(scan: Scan, plane: str) -> int:
    """Number of slices that a volume [C, D, H, W] has in a plane."""
    return scan.array.shape[1 + PLANES[plane]]


def cut(scan: Scan, plane: str, number: int) -> Scan:
    """Slice `number`, from 1, of a volume: [C, H, W] with its own spacing, and its part of the mask.

    An .npz says nothing of its orientation: its slices are neither turned nor mirrored.
    """
    axis = PLANES[plane]
    turned = slice(None, None, 1 if scan.meta.format == "NPZ" else -1)
    at: list[int | slice] = [turned] * 3
    at[axis] = number - 1
    where = tuple(at)
    spacing = tuple(step for other, step in enumerate(scan.spacing_mm) if other != axis)
    mask = None if scan.mask is None else scan.mask[where]
    return replace(
        scan, array=scan.array[(slice(None), *where)], spacing_mm=spacing, mask=mask, affine=None
    )
