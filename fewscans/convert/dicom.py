"""One frame of DICOM: its pixels, their unit and spacing.

Physical values are those after the modality transformation (PS3.3 C.11.1): HU for CT; where it names no unit, those of
a real world mapping (`fewscans.convert.realworld`). VOI windows are display, and not applied.

MONOCHROME1 says that low values are *shown* white (PS3.3 C.7.6.3.1.2); it does not change what a
value means. So values with a unit (HU) stay as they are: water is 0 HU however it is shown. Values
without a unit (radiographs) have only their look, and are turned over within the range of their
bits, so that bright is bright in every file.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.decoding import Decoded, decode
from fewscans.convert.headers import Header, read_header, read_pixels
from fewscans.convert.padding import Padding, fill_padding
from fewscans.convert.quiet import quiet
from fewscans.convert.realworld import Line, Table, real_world

# PS3.3 C.7.6.16.1
_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def read_dicom(path: Path, kind: str, frame: int | None = None) -> Scan:
    """Scan of a DICOM file with one frame, or of one of its frames, counted from 0.

    Raises
    ------
    Unreadable
        ``set-aside`` for objects without pixels (reports, plans) and for several frames none of which is named.
    """
    with quiet():
        header = read_header(path)
        frames = check_is_image(header)
        if frames > 1 and frame is None:
            raise Unreadable(
                f"{frames} frames; name the one that is meant in the table, as PATH#1", "set-aside"
            )
        if (frame or 0) >= frames:
            raise Unreadable(f"{frames} frames; there is no number {(frame or 0) + 1}")
        decoded = decode(path, header, read_pixels(path, header), frame)
        array = np.ascontiguousarray(decoded.planes[0])
        spacing, more = spacing_of(header, frame or 0)
        array, padding, meta = values_of(header, array, decoded, frame or 0)
    array, padded = _without_padding(array, padding, meta)
    array, not_finite = make_finite(array)
    meta = replace(
        meta, format=kind, notes=(*decoded.notes, *more, *meta.notes, *padded, *not_finite)
    )
    return Scan(join_equal_channels(array), spacing, meta)


def _without_padding(
    array: npt.NDArray[np.generic], padding: Padding | None, meta: Meta
) -> tuple[npt.NDArray[np.generic], tuple[str, ...]]:
    """(`array` or, where padding became the lowest real value, another, notes)."""
    mask = None if padding is None else padding.of(array)
    if mask is None or not mask.any():
        return array, ()
    made = array.copy()
    notes = fill_padding(made[:, None], lambda _: mask, meta.scale < 0)
    return (made, notes) if notes else (array, ())


def values_of(
    header: Header, array: npt.NDArray[np.generic], decoded: Decoded, frame: int = 0
) -> tuple[npt.NDArray[np.generic], Padding | None, Meta]:
    """(pixels, their padding, mode, bits and way to physical values) of a frame that was decoded to `array`.

    The pixels are `array`, but for a table of real world values. MONOCHROME1 is in the way to physical values.
    """
    photometric = str(header.get("PhotometricInterpretation", "")).strip() or "unknown"
    padding, rescaled = decoded.padding, decoded.rescaled
    mask = None if padding is None else padding.of(array)
    measured = array
    if mask is not None and mask.any() and not mask.all():
        measured = array[~mask]  # what is no measurement takes no part in ranges
    unit = _unit(header, frame)
    slope, intercept = (1.0, 0.0) if rescaled else _rescale(header, frame)
    notes: tuple[str, ...] = ()
    if not unit and not rescaled:
        mapped, notes = real_world(header, measured, frame)
        if isinstance(mapped, Line):
            slope, intercept, unit = mapped
        elif mapped is not None:
            array, padding = _by_table(mapped, array, mask, measured)
            slope, intercept, unit = 1.0, 0.0, mapped.unit
    bits = int(header.get("BitsStored") or header.get("BitsAllocated") or 8 * array.dtype.itemsize)
    if photometric == "MONOCHROME1" and not unit:
        slope, intercept = _turn_over(header, measured, slope, intercept, rescaled)
        notes = (*notes, "MONOCHROME1: turned over")
    elif photometric == "MONOCHROME1":
        notes = (*notes, f"MONOCHROME1 with values in {unit}: kept as they are")
    return array, padding, Meta("DICOM", photometric, bits, slope, intercept, unit, notes)


def _by_table(
    table: Table,
    array: npt.NDArray[np.generic],
    mask: npt.NDArray[np.bool_] | None,
    measured: npt.NDArray[np.generic],
) -> tuple[npt.NDArray[np.generic], Padding | None]:
    """(values of `array`, their padding): what is padding, by `mask`, need not be in the table."""
    if measured is array or mask is None:
        return table.of(array), None
    values = table.of(measured)
    below = float(np.nextafter(values.min(), np.float32(-np.inf)))  # no measured pixel has it
    made = np.full(array.shape, below, np.float32)
    made[~mask] = values
    return made, Padding(below, below)


def check_is_image(header: Header) -> int:
    """Number of frames; objects without pixels are set aside."""
    if not header.has_pixels:
        what = str(header.get("Modality", "") or "").strip()
        raise Unreadable(f"holds no image{f' ({what})' if what else ''}", "set-aside")
    try:
        frames = int(header.get("NumberOfFrames") or 1)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    except (TypeError, ValueError):
        raise Unreadable("its size or number of frames is not a number") from None
    check_size(columns, rows)
    return max(1, frames)


def find(header: Header, group: str, name: str, frame: int = 0) -> Any:
    """`name` in the functional groups of a frame of an enhanced object, or in the header, or None."""
    for groups, first in ((_PER_FRAME, frame), (_SHARED, 0)):
        for item in (header.get(groups) or [])[first : first + 1]:
            for macro in (item.get(group) or [])[:1]:
                if macro.get(name) is not None:
                    return macro.get(name)
    return header.get(name)


def _rescale(header: Header, frame: int) -> tuple[float, float]:
    """(slope, intercept) of the modality transformation; 1 and 0 where there is none."""
    where = "PixelValueTransformationSequence"
    try:
        slope = float(find(header, where, "RescaleSlope", frame) or 1.0)
        intercept = float(find(header, where, "RescaleIntercept", frame) or 0.0)
    except (TypeError, ValueError):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a number") from None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a finite number")
    return slope, intercept


def _unit(header: Header, frame: int) -> str:
    """``HU``, another unit that the file names, or empty. Rescaled CT is HU unless it says else."""
    where = "PixelValueTransformationSequence"
    table = (header.get("ModalityLUTSequence") or [{}])[0].get("ModalityLUTType")
    named = str(table or find(header, where, "RescaleType", frame) or "").strip().upper()
    if named == "US":  # "unspecified" (PS3.3 C.11.1.1.2)
        return ""
    if named:
        return named
    has_intercept = find(header, where, "RescaleIntercept", frame) is not None
    return "HU" if header.get("Modality") == "CT" and has_intercept else ""


def _turn_over(
    header: Header, array: npt.NDArray[np.generic], slope: float, intercept: float, rescaled: bool
) -> tuple[float, float]:
    """(scale, intercept) with low and high exchanged, in the range of the bits or the values."""
    bits = int(header.get("BitsStored") or 0)
    if rescaled or not bits or array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
    elif array.dtype.kind == "i":
        low, high = -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    else:
        low, high = 0.0, float(2**bits - 1)
    return -slope, slope * (low + high) + intercept


def spacing_of(header: Header, frame: int = 0) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """((between rows, between columns) in mm, notes); no spacing where it is not said, or wrong."""
    for name in _SPACINGS:
        value = find(header, "PixelMeasuresSequence", name, frame)
        if value is None or value == "":
            continue
        try:
            rows, columns = (float(number) for number in value)
        except (TypeError, ValueError):
            rows = columns = math.nan
        if 0 < rows < math.inf and 0 < columns < math.inf:
            return (rows, columns), ()
        return (), (f"{name} is not two positive numbers: taken as unknown",)
    return (), ()
