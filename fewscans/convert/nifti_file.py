"""NIfTI-1 and -2 in one file or two, and Analyze 7.5, opened by their content and not by their name."""

from __future__ import annotations

import gzip
import io
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.convert import Unreadable
from fewscans.convert.packed import read_either
from fewscans.convert.pairs import data_of

_TO_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
# Bytes before the voxels: header and extensions.
_MOST_BEFORE = 2**24
_NO_ORIENTATION = (
    "Analyze 7.5 does not say where right and left are: taken as its standard has it (LAS)"
)


def open_image(
    path: Path, kind: str, check: Callable[[tuple[int, ...]], object]
) -> tuple[Any, npt.NDArray[Any], tuple[str, ...]]:
    """(nibabel image without voxels, voxels as stored, notes); `check` sees the shape before any voxel is read.

    The voxels are the bytes of the file, seen as an array: no copy of them.

    Raises
    ------
    Unreadable
        What `check` raises; voxels that are not all there, or not beside a header that is apart from them.
    """
    import nibabel as nib
    from nibabel.imageglobals import logger as nibabel_logger

    if nibabel_logger.level != logging.CRITICAL:  # header remarks; ours are in the index
        nibabel_logger.setLevel(logging.CRITICAL)
    head = _head(path)
    apart = kind == "ANALYZE" or head[344:347] == b"ni1" or head[4:7] == b"ni2"
    second = head[4:7] in (b"n+2", b"ni2")
    image_type: Any = nib.Nifti2Image if second else nib.Nifti1Image
    if apart:
        image_type = nib.Nifti2Pair if second else nib.Nifti1Pair
    if kind == "ANALYZE":
        image_type = nib.AnalyzeImage
    header_bytes = head[: 540 if second else 348]
    header = image_type.header_class.from_fileobj(io.BytesIO(header_bytes), check=False)
    shape = tuple(int(n) for n in header.get_data_shape())
    check(shape)
    before = float(header["vox_offset"])
    if not 0 <= before <= _MOST_BEFORE:
        raise Unreadable(f"damaged: its voxels begin at byte {before:g}")
    n_bytes = int(before) + header.get_data_dtype().itemsize * math.prod(shape)
    try:
        data, notes = read_either(data_of(path) or path if apart else path, n_bytes)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    voxels = np.ndarray(shape, header.get_data_dtype(), data, int(before), order="F")
    if not apart:
        # Extensions may stand before the voxels.
        return image_type.from_bytes(bytes(data[: max(int(before), len(head))])), voxels, notes
    files = image_type.make_file_map({"header": io.BytesIO(head), "image": io.BytesIO()})
    image = image_type.from_file_map(files)
    return image, voxels, (*_analyze_notes(header), *notes) if kind == "ANALYZE" else notes


def _head(path: Path) -> bytes:
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else open(path, "rb") as handle:
        return handle.read(544)  # a NIfTI-2 header and the four bytes that announce extensions


def _analyze_notes(header: Any) -> tuple[str, ...]:
    """What a reader of Analyze 7.5 must know: it has neither orientation nor slope."""
    slope = float(header["funused1"])
    if slope in (0.0, 1.0) or not math.isfinite(slope):
        return (_NO_ORIENTATION,)
    return (
        _NO_ORIENTATION,
        f"SPM's scale ({slope:g}) is no part of Analyze 7.5 and was not applied",
    )


def millimetres(image: Any) -> float:
    """Length of the image's unit in mm; 1 where it names none."""
    units = getattr(image.header, "get_xyzt_units", lambda: ("unknown",))()
    return _TO_MM.get(units[0], 1.0)
