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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.decoding import decode
from fewscans.convert.quiet import quiet
from fewscans.convert.realworld import real_world

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# PS3.3 C.7.6.16.1: as tags, for they are asked for at each of twenty values of each slice.
_PER_FRAME, _SHARED = Tag("PerFrameFunctionalGroupsSequence"), Tag("SharedFunctionalGroupsSequence")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def read_dicom(path: Path, kind: str, frame: int | None = None) -> Scan:
    """Scan of a DICOM file with one frame, or of one of its frames, counted from 0.

    Raises
    ------
    Unreadable
        ``set-aside`` for objects without pixels (reports, plans) and for several frames none of which is named.
    """
    with quiet():
        dataset = read_dataset(path)
        frames = check_is_image(dataset)
        if frames > 1 and frame is None:
            raise Unreadable(
                f"{frames} frames; name the one that is meant in the table, as PATH#1", "set-aside"
            )
        if (frame or 0) >= frames:
            raise Unreadable(f"{frames} frames; there is no number {(frame or 0) + 1}")
        planes, rescaled, notes = decode(path, dataset, frame)
        array = np.ascontiguousarray(planes[0])
        spacing, more = spacing_of(dataset, frame or 0)
        meta = meta_of(dataset, array, rescaled, frame or 0)
    array, not_finite = make_finite(array)
    meta = replace(meta, format=kind, notes=(*notes, *more, *meta.notes, *not_finite))
    return Scan(join_equal_channels(array), spacing, meta)


def meta_of(
    dataset: Dataset, array: npt.NDArray[np.generic], rescaled: bool, frame: int = 0
) -> Meta:
    """Mode, bits and way to physical values of a frame, whose pixels are `array`; MONOCHROME1 is in it."""
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip() or "unknown"
    unit = _unit(dataset, frame)
    slope, intercept = (1.0, 0.0) if rescaled else _rescale(dataset, frame)
    notes: tuple[str, ...] = ()
    if not unit and not rescaled:
        mapped, notes = real_world(dataset, array, frame)
        slope, intercept, unit = mapped or (slope, intercept, unit)
    bits = int(
        dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8 * array.dtype.itemsize
    )
    if photometric == "MONOCHROME1" and not unit:
        slope, intercept = _turn_over(dataset, array, slope, intercept, rescaled)
        notes = (*notes, "MONOCHROME1: turned over")
    elif photometric == "MONOCHROME1":
        notes = (*notes, f"MONOCHROME1 with values in {unit}: kept as they are")
    return Meta("DICOM", photometric, bits, slope, intercept, unit, notes)


def read_dataset(path: Path) -> Dataset:
    """The whole file, with or without preamble."""
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError:
        pass
    dataset = pydicom.dcmread(path, force=True)  # no preamble: some old archives leave it out
    if not any(element.tag.group == 8 for element in dataset):
        raise Unreadable("not an image, or DICOM whose header is damaged", format="")
    return dataset


def check_is_image(dataset: Dataset) -> int:
    """Number of frames; objects without pixels are set aside."""
    if not any(name in dataset for name in _PIXELS):
        what = str(dataset.get("Modality", "") or "").strip()
        raise Unreadable(f"holds no image{f' ({what})' if what else ''}", "set-aside")
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    except (TypeError, ValueError):
        raise Unreadable("its size or number of frames is not a number") from None
    check_size(columns, rows)
    return max(1, frames)


def find(dataset: Dataset, group: str, name: str, frame: int = 0) -> Any:
    """`name` in the functional groups of a frame of an enhanced object, or in the header, or None."""
    for groups, first in ((_PER_FRAME, frame), (_SHARED, 0)):
        if groups not in dataset:
            continue
        for item in (dataset[groups].value or [])[first : first + 1]:
            for macro in (item.get(group) or [])[:1]:
                if macro.get(name) is not None:
                    return macro.get(name)
    return dataset.get(name) if _tag(name) in dataset else None


@cache
def _tag(name: str) -> BaseTag:
    return Tag(name)


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """(slope, intercept) of the modality transformation; 1 and 0 where there is none."""
    where = "PixelValueTransformationSequence"
    try:
        slope = float(find(dataset, where, "RescaleSlope", frame) or 1.0)
        intercept = float(find(dataset, where, "RescaleIntercept", frame) or 0.0)
    except (TypeError, ValueError):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a number") from None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a finite number")
    return slope, intercept


def _unit(dataset: Dataset, frame: int) -> str:
    """``HU``, another unit that the file names, or empty. Rescaled CT is HU unless it says else."""
    where = "PixelValueTransformationSequence"
    table = (dataset.get("ModalityLUTSequence") or [{}])[0].get("ModalityLUTType")
    named = str(table or find(dataset, where, "RescaleType", frame) or "").strip().upper()
    if named == "US":  # "unspecified" (PS3.3 C.11.1.1.2)
        return ""
    if named:
        return named
    has_intercept = find(dataset, where, "RescaleIntercept", frame) is not None
    return "HU" if dataset.get("Modality") == "CT" and has_intercept else ""


def _turn_over(
    dataset: Dataset, array: npt.NDArray[np.generic], slope: float, intercept: float, rescaled: bool
) -> tuple[float, float]:
    """(scale, intercept) with low and high exchanged, in the range of the bits or the values."""
    bits = int(dataset.get("BitsStored") or 0)
    if rescaled or not bits or array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
    elif dataset.get("PixelRepresentation") == 1:
        low, high = -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    else:
        low, high = 0.0, float(2**bits - 1)
    return -slope, slope * (low + high) + intercept


def spacing_of(dataset: Dataset, frame: int = 0) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """((between rows, between columns) in mm, notes); no spacing where it is not said, or wrong."""
    for name in _SPACINGS:
        value = find(dataset, "PixelMeasuresSequence", name, frame)
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
