"""NIfTI: a 2D slice of shape (x, y), or with further axes of length 1, as [H, W] = (y, x)."""

from __future__ import annotations

import gzip
import io
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite

_TO_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


def read_nifti(path: Path, kind: str) -> Scan:
    """Scan of a NIfTI-1 or -2 file, gzipped or not. Axes are transposed, not flipped.

    Raises
    ------
    Unreadable
        ``set-aside`` for volumes, header/image pairs and complex numbers.
    """
    import nibabel as nib
    from nibabel.imageglobals import logger as nibabel_logger

    nibabel_logger.setLevel(logging.CRITICAL)  # header remarks; ours are in the index
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else open(path, "rb") as handle:
        head = handle.read(540)
        image_type = nib.Nifti2Image if head[4:7] in (b"n+2", b"ni2") else nib.Nifti1Image
        if head[344:347] == b"ni1" or head[4:7] == b"ni2":
            raise Unreadable("the header of a pair (.hdr, .img); save it as one .nii", "set-aside")
        header_bytes = head[: 540 if image_type is nib.Nifti2Image else 348]
        header = image_type.header_class.from_fileobj(io.BytesIO(header_bytes), check=False)
        shape = tuple(int(n) for n in header.get_data_shape())
        kept = _plane(shape)
        # Only as much as the header promises: what a gzip stream holds beyond is never unpacked.
        n_bytes = int(header["vox_offset"]) + header.get_data_dtype().itemsize * int(np.prod(shape))
        data = head + handle.read(max(0, n_bytes - len(head)))
    if len(data) < n_bytes:
        raise Unreadable(f"the file is cut short ({len(data)} of {n_bytes} bytes)")
    image = image_type.from_bytes(data)
    array = np.asanyarray(image.dataobj.get_unscaled()).reshape([shape[axis] for axis in kept])
    slope, intercept = image.dataobj.slope, image.dataobj.inter  # the header loses them on loading
    array, mode = _channels(array)
    array, notes = make_finite(array)
    zooms = image.header.get_zooms()
    unit = _TO_MM.get(image.header.get_xyzt_units()[0], 1.0)
    spacing = tuple(float(zooms[axis]) * unit for axis in reversed(kept))
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
        notes=notes,
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
