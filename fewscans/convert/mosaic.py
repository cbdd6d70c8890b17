"""Siemens mosaics: the slices of a volume as tiles of one image (ImageType ``MOSAIC``).

How many tiles there are, and to which side they go on, is in a private header (CSA), which nibabel reads.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fewscans.convert import Unreadable
from fewscans.convert.frames import Frame, normal_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def tiles(whole: Frame, dataset: Dataset) -> list[Frame]:
    """A frame per tile, from that of the whole mosaic.

    The mosaic's position is that of an image as large as the mosaic with the slice's middle in its middle
    (https://nipy.org/nibabel/dicom/dicom_mosaic.html); a tile's own is moved by half of what it is smaller.

    Raises
    ------
    Unreadable
        ``set-aside`` where the private header is not there or does not fit.
    """
    from nibabel.nicom import csareader

    csa = csareader.get_csa_header(dataset)
    n = csareader.get_n_mosaic(csa) if csa else None
    direction = csareader.get_slice_normal(csa) if csa else None
    if not n or direction is None:
        raise Unreadable(
            "a mosaic without its private header (CSA): how many slices it has is not known",
            "set-aside",
        )
    side = math.ceil(math.sqrt(n))
    if whole.n_rows % side or whole.n_columns % side:
        raise Unreadable(f"a mosaic whose size does not fit {n} slices", "set-aside")
    rows, columns = whole.n_rows // side, whole.n_columns // side
    step = float(dataset.get("SpacingBetweenSlices") or whole.thickness_mm)
    if step <= 0:
        raise Unreadable("a mosaic that does not say the distance of its slices", "set-aside")
    between_rows, between_columns = whole.spacing_mm
    first = (
        np.array(whole.position)
        + np.array(whole.row) * between_columns * (whole.n_columns - columns) / 2
        + np.array(whole.column) * between_rows * (whole.n_rows - rows) / 2
    )
    normal = normal_of(whole) * np.sign(normal_of(whole) @ np.asarray(direction))
    return [
        replace(
            whole,
            tile=tile,
            position=tuple((first + tile * step * normal).tolist()),
            n_rows=rows,
            n_columns=columns,
            notes=(*whole.notes, f"a mosaic of {n} slices"),
        )
        for tile in range(n)
    ]


def cut_tile(
    plane: npt.NDArray[np.generic], tile: int, n_rows: int, n_columns: int
) -> npt.NDArray[np.generic]:
    """[C, H, W] of the mosaic -> [C, n_rows, n_columns] of one tile; they run along rows first."""
    down, right = divmod(tile, plane.shape[-1] // n_columns)
    return plane[
        :, down * n_rows : (down + 1) * n_rows, right * n_columns : (right + 1) * n_columns
    ]
