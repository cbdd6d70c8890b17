"""Single-frame DICOM, by pydicom, or SimpleITK (GDCM) where pydicom has no decoder.

Physical values are those after the modality transformation (PS3.3 C.11.1): HU for CT. VOI windows
are display, and not applied.

MONOCHROME1 says that low values are *shown* white (PS3.3 C.7.6.3.1.2); it does not change what a
value means. So values with a unit (HU) stay as they are: water is 0 HU however it is shown. Values
without a unit (radiographs) have only their look, and are turned over within the range of their
bits, so that bright is bright in every file.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def read_dicom(path: Path, kind: str) -> Scan:
    """Scan of a DICOM file with one frame.

    Raises
    ------
    Unreadable
        ``set-aside`` for objects without pixels (reports, plans) and for several frames.
    """
    with _quiet():
        dataset = _read_dataset(path)
        _check_is_one_image(dataset)
        array, rescaled, notes = _decode(path, dataset)
        spacing, more = _spacing(dataset)
        photometric = str(dataset.get("PhotometricInterpretation", "")).strip() or "unknown"
        slope, intercept, unit = (1.0, 0.0, _unit(dataset)) if rescaled else _rescale(dataset)
        bits = int(
            dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8 * array.dtype.itemsize
        )
        if photometric == "MONOCHROME1" and not unit:
            slope, intercept = _turn_over(dataset, array, slope, intercept, rescaled)
            more = (*more, "MONOCHROME1: turned over")
        elif photometric == "MONOCHROME1":
            more = (*more, f"MONOCHROME1 with values in {unit}: kept as they are")
    array, not_finite = make_finite(array)
    meta = Meta(kind, photometric, bits, slope, intercept, unit, (*notes, *more, *not_finite))
    return Scan(join_equal_channels(array), spacing, meta)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's remarks on values that are out of order; what matters is in the index."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _read_dataset(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError:
        pass
    dataset = pydicom.dcmread(path, force=True)  # no preamble: some old archives leave it out
    if not any(element.tag.group == 8 for element in dataset):
        raise Unreadable("not an image, or DICOM whose header is damaged", format="")
    return dataset


def _check_is_one_image(dataset: Dataset) -> None:
    if not any(name in dataset for name in _PIXELS):
        what = str(dataset.get("Modality", "") or "").strip()
        raise Unreadable(f"holds no image{f' ({what})' if what else ''}", "set-aside")
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    except (TypeError, ValueError):
        raise Unreadable("its size or number of frames is not a number") from None
    if frames > 1:
        raise Unreadable(f"{frames} frames; files with one are read", "set-aside")
    check_size(columns, rows)


def _decode(path: Path, dataset: Dataset) -> tuple[npt.NDArray[np.generic], bool, tuple[str, ...]]:
    """([C, H, W], whether the modality transformation is in it, notes)."""
    notes: tuple[str, ...] = ()
    meta = dataset.file_meta if hasattr(dataset, "file_meta") else pydicom.dataset.FileMetaDataset()
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        meta.TransferSyntaxUID = _uncompressed(bool(implicit), little is not False)
        dataset.file_meta = meta
        notes = ("no transfer syntax in the header: read as uncompressed",)
    try:
        array = dataset.pixel_array
    except Exception as error:
        if not _is_compressed(dataset):
            raise Unreadable(_pixel_reason(error)) from None
        return *_decode_gdcm(path, error), (*notes, "decoded by GDCM")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    photometric = dataset.get("PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        array = _apply_palette(array, dataset)
    array, rescaled = _apply_modality_lut(array, dataset)
    return _channels_first(array), rescaled, notes


def _uncompressed(implicit: bool, little: bool) -> str:
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian


def _is_compressed(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    return bool(syntax.is_transfer_syntax) and bool(syntax.is_compressed)


def _decode_gdcm(path: Path, first: Exception) -> tuple[npt.NDArray[np.generic], bool]:
    """Pixels by SimpleITK, which applies rescale slope and intercept itself."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError:
        raise Unreadable(_pixel_reason(first)) from None
    array = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 3:
        array = array[0]
    return _channels_first(array), True


def _channels_first(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.ndim == 2:
        return np.ascontiguousarray(array)[None]
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        return np.ascontiguousarray(np.moveaxis(array[..., :3], -1, 0))
    raise Unreadable(f"not one 2D image (shape {array.shape})", "set-aside")


def _apply_palette(array: npt.NDArray[np.generic], dataset: Dataset) -> npt.NDArray[np.generic]:
    """Indices -> RGB; 16-bit tables that only repeat 8 bits become 8 bits."""
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(array, dataset)[..., :3]
    if colour.dtype == np.uint16 and not (colour & 0xFF).any():
        return (colour >> 8).astype(np.uint8)
    if colour.dtype == np.uint16 and ((colour >> 8) == (colour & 0xFF)).all():
        return (colour >> 8).astype(np.uint8)
    return colour


def _apply_modality_lut(
    array: npt.NDArray[np.generic], dataset: Dataset
) -> tuple[npt.NDArray[np.generic], bool]:
    from pydicom.pixels import apply_modality_lut

    if "ModalityLUTSequence" in dataset and dataset.ModalityLUTSequence:
        return apply_modality_lut(array, dataset), True
    return array, False


def _find(dataset: Dataset, group: str, name: str) -> Any:
    """`name` in the header, or in the functional groups of an enhanced object, or None."""
    if dataset.get(name) is not None:
        return dataset.get(name)
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for item in (dataset.get(groups) or [])[:1]:
            for macro in (item.get(group) or [])[:1]:
                if macro.get(name) is not None:
                    return macro.get(name)
    return None


def _rescale(dataset: Dataset) -> tuple[float, float, str]:
    """(slope, intercept, unit) of the modality transformation; 1 and 0 where there is none."""
    where = "PixelValueTransformationSequence"
    try:
        slope = float(_find(dataset, where, "RescaleSlope") or 1.0)
        intercept = float(_find(dataset, where, "RescaleIntercept") or 0.0)
    except (TypeError, ValueError):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a number") from None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise Unreadable("RescaleSlope or RescaleIntercept is not a finite number")
    return slope, intercept, _unit(dataset)


def _unit(dataset: Dataset) -> str:
    """``HU``, another unit that the file names, or empty. Rescaled CT is HU unless it says else."""
    where = "PixelValueTransformationSequence"
    named = str(_find(dataset, where, "RescaleType") or "").strip().upper()
    if named == "US":  # "unspecified" (PS3.3 C.11.1.1.2)
        return ""
    if named:
        return named
    has_intercept = _find(dataset, where, "RescaleIntercept") is not None
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


def _spacing(dataset: Dataset) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """((between rows, between columns) in mm, notes); no spacing where it is not said, or wrong."""
    for name in _SPACINGS:
        value = _find(dataset, "PixelMeasuresSequence", name)
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


def _pixel_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = re.match(
        r"Unable to decompress '(.*)' pixel data because all plugins are missing", text
    )
    if unknown:
        return f"{unknown[1]} of a kind that no decoder here knows"
    if "less than expected" in text:
        return f"the file is cut short ({text.split(' - ')[0]})"
    if isinstance(error, NotImplementedError):
        return "compressed in a way that no decoder here knows"
    return f"pixels cannot be decoded ({text[:200]})"
