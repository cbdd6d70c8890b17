"""Label maps of scans: read like scans, and put on their grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fewscans.convert import Scan, Unreadable, read

Labels = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]

# Voxels by which the corners of two grids may lie apart and still be one grid: rounding of headers.
_SAME_GRID = 0.1
_MOST_LABEL = 65535


def with_mask(scan: Scan, path: Path, ndim: int) -> Scan:
    """`scan` with the label map in the file `path`, on its own grid.

    A map of another grid is resampled by nearest neighbour, where both say how they lie in space; beyond the map
    there is no label. Without that, both must have one shape.

    Raises
    ------
    Unreadable
        The file cannot be read or is no label map, the grids cannot be brought together, or do not overlap.
    """
    try:
        given = read(path, ndim)
        labels = _labels(given)
        shape = scan.array.shape[1:]
        if scan.affine is None or given.affine is None:
            if labels.shape != shape:
                sizes = " and ".join(" x ".join(map(str, one)) for one in (labels.shape, shape))
                raise Unreadable(
                    f"has another shape than the scan ({sizes}), and nothing says how they lie"
                )
            return replace(scan, mask=labels)
        made, moved = _on_grid(labels, given.affine, shape, scan.affine)
    except Unreadable as error:
        reason = f"its mask: {error.reason}"
        raise Unreadable(reason, error.status, scan.meta.format) from None
    note = ("its mask was resampled to the scan's grid (nearest)",) if moved else ()
    return replace(scan, mask=made, meta=replace(scan.meta, notes=(*scan.meta.notes, *note)))


def _labels(given: Scan) -> Labels:
    """The whole numbers of a label map [*axes], as uint8 where they fit, else uint16."""
    if given.array.shape[0] != 1:
        raise Unreadable("is in colours; a label map has one channel of whole numbers")
    values = given.array[0]
    if (given.meta.scale, given.meta.intercept) != (1.0, 0.0):
        values = given.physical()[0]
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise Unreadable("has values that are no whole numbers; labels are needed")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST_LABEL:
        raise Unreadable(f"has labels from {low} to {high}; they go from 0 to {_MOST_LABEL}")
    return values.astype(np.uint8 if high < 256 else np.uint16)


def _on_grid(
    labels: Labels, own: Floats, shape: tuple[int, ...], wanted: Floats
) -> tuple[Labels, bool]:
    """(`labels` of the affine `own` on the grid of `shape` and `wanted`, whether anything was resampled)."""
    # From (x, y, z) of the scan to (x, y, z) of the map; arrays have the axes backwards.
    step = np.linalg.inv(own) @ wanted
    turn, start = step[:3, :3][::-1, ::-1], step[:3, 3][::-1]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    there = turn @ corners + start[:, None]
    if labels.shape == shape and np.abs(there - corners).max() < _SAME_GRID:
        return labels, False
    last = np.array(labels.shape)[:, None] - 0.5
    inside = (there.max(axis=1) > -0.5) & (there.min(axis=1) < last[:, 0])
    if not inside.all():
        raise Unreadable("lies elsewhere in space: it does not overlap the scan")
    made = ndimage.affine_transform(labels, turn, start, shape, order=0, mode="constant", cval=0)
    if labels.any() and not made.any():
        raise Unreadable("has no label within the scan")
    return made, True
