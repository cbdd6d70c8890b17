"""NIfTI-1 and -2 in one file or two, and Analyze 7.5, opened by their content and not by their name."""

from __future__ import annotations

import gzip
import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.convert import Unreadable
from fewscans.convert.packed import GZIP, Bytes, read_either
from fewscans.convert.pairs import data_of
from fewscans.convert.parts import Layout, read_part

_TO_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
# Bytes before the voxels: header and extensions.
_MOST_BEFORE = 2**24
_NO_ORIENTATION = (
    "Analyze 7.5 does not say where right and left are: taken as its standard has it (LAS)"
)


@dataclass(frozen=True)
class NiftiHeader:
    """What a file says of itself before its voxels.

    Attributes
    ----------
    fields : nibabel header
        As it stands in the file, unchecked.
    shape : tuple of int
        Of the array, (x, y, z, ...).
    before : int
        Bytes in front of the voxels.
    voxels : Path
        The file that has them.
    head : bytes
        Header, and what fits behind it.
    image_type : class
        Of nibabel.
    apart : bool
        Whether the voxels are in another file.
    """

    fields: Any
    shape: tuple[int, ...]
    before: int
    voxels: Path
    head: bytes
    image_type: Any
    apart: bool

    def layout(self, count: int) -> Layout:
        """Where `count` volumes lie, along an axis behind the first three."""
        with open(self.voxels, "rb") as handle:
            packed = handle.read(2) == GZIP
        n_bytes = self.fields.get_data_dtype().itemsize * math.prod(self.shape[:3])
        return Layout(self.voxels, 0, self.before, n_bytes, count, packed)


def read_nifti_header(
    path: Path, kind: str, check: Callable[[tuple[int, ...]], object]
) -> NiftiHeader:
    """The header; `check` sees the shape.

    Raises
    ------
    Unreadable
        What `check` raises; voxels that are far behind the header, or not beside one that is apart from them.
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
    try:
        voxels = data_of(path) or path if apart else path
    except ValueError as error:
        raise Unreadable(str(error)) from None
    return NiftiHeader(header, shape, int(before), voxels, head, image_type, apart)


def open_image(
    path: Path,
    kind: str,
    check: Callable[[tuple[int, ...]], object],
    part: tuple[int, int] | None = None,
) -> tuple[Any, npt.NDArray[Any], tuple[str, ...]]:
    """(nibabel image without voxels, voxels as stored, notes); `check` sees the shape before any voxel is read.

    With `part` the voxels are those of this volume, from 0, of so many. They are the bytes of the file, seen as an
    array: no copy of them.

    Raises
    ------
    Unreadable
        What `check` raises; voxels that are not all there, or not beside a header that is apart from them.
    """
    header = read_nifti_header(path, kind, check)
    dtype, shape, start = header.fields.get_data_dtype(), header.shape, header.before
    data: Bytes
    if part is None:
        data, notes = read_either(header.voxels, start + dtype.itemsize * math.prod(shape))
    else:
        data, notes = read_part(header.layout(part[1]), part[0])
        shape, start = shape[:3], 0
    voxels = np.ndarray(shape, dtype, data, start, order="F")
    image_type, head = header.image_type, header.head
    if not header.apart:
        # Extensions may stand before the voxels.
        n_before = max(header.before, len(head))
        before = bytes(data[:n_before]) if part is None else _head(path, n_before)
        return image_type.from_bytes(before), voxels, notes
    files = image_type.make_file_map({"header": io.BytesIO(head), "image": io.BytesIO()})
    image = image_type.from_file_map(files)
    analyze = kind == "ANALYZE"
    return image, voxels, (*_analyze_notes(header.fields), *notes) if analyze else notes


def _head(path: Path, n_bytes: int = 544) -> bytes:
    """First bytes of what is packed or not: a NIfTI-2 header and the four bytes that announce extensions."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == GZIP
    with gzip.open(path, "rb") if zipped else open(path, "rb") as handle:
        return handle.read(n_bytes)


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
