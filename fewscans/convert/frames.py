"""Planes of a DICOM file by its header alone: one, those of an enhanced object, or the tiles of a mosaic.

No pixel is read. What is no plane of a volume (reports, localisers, pictures of a screen, projections, lists of files)
is set aside with its reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.convert import Unreadable
from fewscans.convert.dicom import check_is_image, find, spacing_of
from fewscans.convert.headers import Header, read_header
from fewscans.convert.quiet import quiet

Vector = tuple[float, ...]

_DICOMDIR = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage (PS3.4 I.4)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds below it
# Defined terms of Image Type, value 3 and on (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1, C.8.13.3.1.1), and what vendors write.
_LOCALISERS = {"LOCALIZER", "SCOUT", "SURVEY", "SURVIEW", "REF_SURVIEW", "TOPOGRAM", "SCANOGRAM"}
_DERIVED = {
    "PROJECTION IMAGE", "MIP", "MINIP", "MAX_IP", "MIN_IP", "MEAN", "MPR", "CURVED_MPR", "REFORMATTED", "CSA MPR",
    "CSA RESAMPLED", "CSA MIP", "VOLUME_RENDER", "VOLUME RENDERING", "SURFACE_RENDER", "VRT", "SSD", "3D RENDERING",
    "SCREEN SAVE", "DOSE_INFO", "DOSE INFO", "CPR",
}  # fmt: skip
_NO_IMAGES = {"SEG": "a segmentation", "RTDOSE": "doses of radiation"}
# From the origin of any scanner; a number beyond it is no position.
_FARTHEST_MM = 1e5
# What tells repetitions of a position apart: name -> (functional group, names there; the first is that of the header).
_TOLD = {
    "TemporalPositionIdentifier": ("FrameContentSequence", ("TemporalPositionIdentifier", "TemporalPositionIndex")),
    "EchoTime": ("MREchoSequence", ("EchoTime", "EffectiveEchoTime")),
    "EchoNumbers": ("", ("EchoNumbers",)),
    "DiffusionBValue": ("MRDiffusionSequence", ("DiffusionBValue",)),
    "DiffusionGradientOrientation": ("", ("DiffusionGradientOrientation",)),
    "InversionTime": ("MRModifierSequence", ("InversionTime", "InversionTimes")),
    "TriggerTime": ("CardiacSynchronizationSequence", ("TriggerTime", "NominalCardiacTriggerDelayTime")),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", ("FlipAngle",)),
    "AcquisitionNumber": ("FrameContentSequence", ("FrameAcquisitionNumber", "AcquisitionNumber")),
    "AcquisitionTime": ("FrameContentSequence", ("FrameAcquisitionDateTime", "AcquisitionTime")),
    "ContentTime": ("", ("ContentTime",)),
}  # fmt: skip
# b-values that their makers kept private: Siemens, GE.
_PRIVATE_B_VALUES = ((0x0019, "SIEMENS MR HEADER", 0x0C), (0x0043, "GEMS_PARM_01", 0x39))


@dataclass(frozen=True)
class Frame:
    """One plane.

    Attributes
    ----------
    file, number, tile
        Where its pixels are: frame of the file, tile of a mosaic (-1: no mosaic), from 0.
    instance : str
        SOPInstanceUID: two files with the same are copies of one.
    unit : str
        The file, or what a concatenation calls itself: planes of one unit belong together.
    position : (x, y, z) mm
        Centre of the first pixel, in LPS (PS3.3 C.7.6.2.1.1).
    row, column : (x, y, z)
        Directions in which a row goes on (to the next column) and a column (to the next row).
    spacing_mm : (between rows, between columns)
    thickness_mm : float
        0 where it is not said.
    n_rows, n_columns : int
        Size.
    series : (SeriesNumber, SeriesInstanceUID)
    kind : tuple of str
        What planes of one volume share beside their geometry: patient, frame of reference, colours.
    image_type : str
        Image Type or Frame Type, and the complex component; different ones are split where they share places.
    told : tuple of str
        What may tell repetitions apart, in the order of `TOLD`; "" where it is not said.
    notes : tuple of str
    """

    file: Path
    number: int
    tile: int
    instance: str
    unit: str
    position: Vector
    row: Vector
    column: Vector
    spacing_mm: Vector
    thickness_mm: float
    n_rows: int
    n_columns: int
    series: tuple[float, str]
    kind: tuple[str, ...]
    image_type: str
    told: tuple[str, ...]
    notes: tuple[str, ...] = ()


TOLD = tuple(_TOLD)


def read_frames(path: Path) -> list[Frame]:
    """Planes of a DICOM file, by what comes before its pixels.

    Raises
    ------
    Unreadable
        ``set-aside`` for what is no part of a volume; damaged headers.
    """
    with quiet():
        header = read_header(path)
        image_type = [str(word).strip().upper() for word in _many(header.get("ImageType"))]
        _check_kind(header, image_type)
        frames = check_is_image(header)
        said = len(header.get("PerFrameFunctionalGroupsSequence") or [])
        if frames > 1 and not said:
            raise Unreadable(f"{frames} frames that do not say where they lie", "set-aside")
        if said and said != frames:
            raise Unreadable(f"its header says {frames} frames and describes {said}")
        if "MOSAIC" in image_type:
            from fewscans.convert.mosaic import tiles

            return tiles(_frame(path, header, 0), header.dataset)
        return [_frame(path, header, number) for number in range(frames)]


def _check_kind(header: Header, image_type: list[str]) -> None:
    if (
        header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR
        or "DirectoryRecordSequence" in header
    ):
        raise Unreadable("a DICOMDIR, a list of files", "set-aside")
    words = set(image_type[2:])
    if words & _LOCALISERS:
        raise Unreadable("a localiser", "set-aside")
    if str(header.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        raise Unreadable("a secondary capture: a picture of a screen or a report", "set-aside")
    modality = str(header.get("Modality", "")).strip().upper()
    if modality in _NO_IMAGES:
        raise Unreadable(f"holds {_NO_IMAGES[modality]}, no image", "set-aside")
    if words & _DERIVED:
        raise Unreadable(f"derived from other images ({min(words & _DERIVED)})", "set-aside")


def _frame(path: Path, header: Header, number: int) -> Frame:
    position = _vector(find(header, "PlanePositionSequence", "ImagePositionPatient", number), 3)
    cosines = _vector(find(header, "PlaneOrientationSequence", "ImageOrientationPatient", number), 6)  # fmt: skip
    if position is None or cosines is None or max(map(abs, position)) > _FARTHEST_MM:
        raise Unreadable("does not say where it lies in space (a projection?)", "set-aside")
    spacing, notes = spacing_of(header, number)
    if not spacing:
        raise Unreadable(f"does not say its spacing{''.join(f' ({note})' for note in notes)}", "set-aside")  # fmt: skip
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    if abs(row @ column) > 0.01 or max(abs(np.linalg.norm([row, column], axis=1) - 1)) > 0.01:
        raise Unreadable("its ImageOrientationPatient is no pair of directions at right angles")
    frame_type = _many(
        find(header, "MRImageFrameTypeSequence", "FrameType", number)
        or find(header, "CTImageFrameTypeSequence", "FrameType", number)
        or header.get("ImageType")
    )
    component = find(header, "MRImageFrameTypeSequence", "ComplexImageComponent", number)
    thickness = _vector(find(header, "PixelMeasuresSequence", "SliceThickness", number), 1)
    told = tuple(_told(header, *where, number) for where in _TOLD.values())
    derived = str(frame_type[0] if frame_type else "").strip().upper() == "DERIVED"
    return Frame(
        path,
        number,
        -1,
        str(header.get("SOPInstanceUID", path)),
        str(header.get("ConcatenationUID") or path),
        position,
        tuple(row.tolist()),
        tuple(column.tolist()),
        spacing,
        abs(thickness[0]) if thickness else 0.0,
        int(header.get("Rows")),
        int(header.get("Columns")),
        (_number(header.get("SeriesNumber")), str(header.get("SeriesInstanceUID", ""))),
        (
            str(header.get("PatientID", "")),
            str(header.get("FrameOfReferenceUID", "")),
            str(header.get("PhotometricInterpretation", "")),
        ),
        "\\".join([*map(str, frame_type), str(component or "")]),
        told,
        (f"derived images ({'/'.join(map(str, frame_type))})",) if derived else (),
    )


def _told(header: Header, group: str, names: tuple[str, ...], frame: int) -> str:
    for name in names:
        value = find(header, group, name, frame)
        if value is not None and value != "":
            return "\\".join(map(str, _many(value)))
    if names == ("DiffusionBValue",):
        groups = header.groups
        for number, creator, offset in _PRIVATE_B_VALUES:
            if number not in groups:
                continue
            try:
                return str(_many(header.dataset.private_block(number, creator)[offset].value)[0])
            except (KeyError, IndexError):
                continue
    if names == ("DiffusionGradientOrientation",):
        where = ("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
        for macro in find(header, *where, frame) or []:
            return "\\".join(map(str, _many(macro.get("DiffusionGradientOrientation"))))
    return ""


def _many(value: Any) -> list[Any]:
    """A value of one or several as a list; none as an empty one."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def _vector(value: Any, n: int) -> Vector | None:
    """`n` finite numbers, or None."""
    try:
        numbers = tuple(float(number) for number in _many(value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == n and all(map(math.isfinite, numbers)) else None


def _number(value: Any) -> float:
    """A number to sort by; what is none comes last."""
    found = _vector(value, 1)
    return found[0] if found else math.inf


def normal_of(frame: Frame) -> npt.NDArray[np.float64]:
    """Unit vector at right angles to the plane: row x column."""
    made = np.cross(frame.row, frame.column)
    return made / np.linalg.norm(made)
