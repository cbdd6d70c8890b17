"""NIfTI: a 2D slice of shape (x, y), or with further axes of length 1, as [H, W] = (y, x)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.nifti_file import millimetres, open_image


def read_nifti(path: Path, kind: str) -> Scan:
    """Scan of a NIfTI-1 or -2 file or pair, gzipped or not, or of Analyze 7.5. Axes are transposed, not flipped.

    Raises
    ------
    Unreadable
        ``set-aside`` for volumes and complex numbers.
    """
    image, stored, unpacked = open_image(path, kind, _plane)
    kept = _plane(stored.shape)
    array = stored.reshape([stored.shape[axis] for axis in kept], order="F")
    slope, intercept = image.dataobj.slope, image.dataobj.inter  # the header loses them on loading
    array, mode = _channels(array)
    array, notes = make_finite(array)
    zooms = image.header.get_zooms()
    spacing = tuple(float(zooms[axis]) * millimetres(image) for axis in reversed(kept))
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        spacing, notes = (
            (),
            (*notes, "spacing in the header is not a positive number: taken as unknown"),
        )
    meta = Meta(
        kind,
        mode,
        8 * array.dtype.itemsize,
        float(slope),
        float(intercept),
        notes=(*unpacked, *notes),
    )
    return Scan(join_equal_channels(array), spacing, meta)


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """The two axes of a slice: those longer than 1, else the first."""
    long = [axis for axis, n in enumerate(shape) if n > 1]
    if len(long) > 2:
        lengths = " x ".join(map(str, shape))
        raise Unreadable(
            f"a volume ({lengths}); 2D is read here, 3D where the recipe has `ndim: 3`", "set-aside"
        )
    if len(shape) < 2 or 0 in shape:
        raise Unreadable(f"not an image (shape {shape})")
    kept = long + [axis for axis in range(len(shape)) if axis not in long]
    first, second = sorted(kept[:2])
    check_size(shape[first], shape[second])
    return first, second


def _channels(array: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.generic], str]:
    """(x, y) -> ([C, H, W], colour mode)."""
    if array.dtype.names:
        planes = [array[name].T for name in array.dtype.names[:3]]
        return np.ascontiguousarray(np.stack(planes)), "RGB"
    if array.dtype.kind == "c":
        raise Unreadable("complex numbers; save magnitude or phase", "set-aside")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array.T)[None], str(array.dtype)
