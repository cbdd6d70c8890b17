"""NRRD and MetaImage (.mha, .mhd) by SimpleITK, with or without a file of their own for the voxels.

SimpleITK reads header and voxels. What it would believe is looked at before: that the voxels lie beside the header (a
header may name any file of the machine), that all of them are there, and how many they are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.packed import read_plain, unpack
from fewscans.convert.pairs import MAX_HEADER, data_of, text_header
from fewscans.convert.volume import to_ras, turned_affine

_IO = {"NRRD": "NrrdImageIO", "MHA": "MetaImageIO"}
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # SimpleITK has LPS
_TO_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001}
# Lists of a MetaImage header -> 1 or 2: as long as there are axes, or their square.
_LISTS = {
    "dimsize": 1, "elementspacing": 1, "elementsize": 1, "offset": 1, "position": 1, "origin": 1, "centerofrotation": 1,
    "transformmatrix": 2, "rotation": 2, "orientation": 2,
}  # fmt: skip
_SAYS_SPACING = ("space directions", "spacings", "elementspacing", "elementsize")
_SAYS_ORIENTATION = ("space", "transformmatrix", "rotation", "orientation")


def read_itk(path: Path, kind: str, ndim: int) -> Scan:
    """Scan of an NRRD or MetaImage file: an image as its rows lie, a volume turned to the nearest RAS axes.

    Raises
    ------
    Unreadable
        ``set-aside`` for what has other axes than `ndim`, complex or several numbers per voxel (colours apart), and
        voxels of another folder; voxels that are not all there.
    """
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with open(path, "rb") as handle:
        head = handle.read(MAX_HEADER)
    try:
        fields, end = text_header(head)
        data = data_of(path)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if kind == "MHA":
        _check_metaimage(fields)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IO[kind])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = tuple(int(n) for n in reader.GetSize())
        kept = _axes(size, ndim)
        colours = reader.GetNumberOfComponents()
        _check_numbers(sitk, reader, colours)
        n_bytes = math.prod(size) * colours * _itemsize(sitk, reader.GetPixelIDValue())
        notes = _check_whole(path, data, fields, end, n_bytes)
        image = reader.Execute()
    except RuntimeError as error:
        raise Unreadable(f"damaged ({_last_line(error)})") from None
    array = sitk.GetArrayFromImage(image)
    if tuple(array.shape[: len(size)][::-1]) != size:
        raise Unreadable(f"its header says {_shown(size)}; it holds {_shown(array.shape[::-1])}")
    planes = np.moveaxis(array, -1, 0) if colours > 1 else array[None]
    planes = planes.reshape(planes.shape[0], *(size[axis] for axis in reversed(kept)))
    spacing, more = _spacing(image.GetSpacing(), fields)
    affine = None
    if ndim == 3:
        if spacing and all(image.GetSpacing()):
            unit_mm = spacing[0] / image.GetSpacing()[0]
            affine = turned_affine(planes.shape[:0:-1], _affine(image), unit_mm)
        turned, spacing, how = to_ras(
            planes.transpose(3, 2, 1, 0), _affine(image), spacing or (0.0,) * 3
        )
        planes, more = turned.transpose(3, 2, 1, 0), (*more, *how, *_orientation(fields))
    else:
        spacing = tuple(spacing[axis] for axis in reversed(kept)) if spacing else ()
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        spacing = ()
    planes, not_finite = make_finite(np.ascontiguousarray(planes))
    scale, intercept = _slope(fields)
    mode = "RGB" if colours > 1 else str(planes.dtype)
    notes = (*notes, *more, *not_finite)
    meta = Meta(kind, mode, 8 * planes.dtype.itemsize, scale, intercept, notes=notes)
    return Scan(join_equal_channels(planes), spacing, meta, affine if spacing else None)


def _check_metaimage(fields: dict[str, str]) -> None:
    """Refuse a MetaImage header whose lists are not as long as its axes say: SimpleITK would write past its own."""
    axes = fields.get("ndims", "")
    n = int(axes) if axes.isdecimal() and len(axes) < 3 else 0
    if not 2 <= n <= 5:
        raise Unreadable(f"damaged: its header says {axes[:20]!r} axes")
    channels = fields.get("elementnumberofchannels", "1")
    if not channels.isdecimal() or not 1 <= len(channels) <= 3:
        raise Unreadable(f"damaged: its header says {channels[:20]!r} numbers per voxel")
    for name, wanted in _LISTS.items():
        numbers = fields.get(name, "0 " * n**wanted).split()
        if len(numbers) != n**wanted or not all(map(_is_number, numbers)):
            raise Unreadable(f"damaged: '{name}' in its header is not {n**wanted} numbers")


def _is_number(text: str) -> bool:
    try:
        return len(text) < 40 and math.isfinite(float(text))
    except ValueError:
        return False


def _axes(size: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes of space: `ndim` of them, the others of length 1."""
    check_size(*size)
    long = [axis for axis, n in enumerate(size) if n > 1]
    if ndim == 2 and len(long) > 2:
        raise Unreadable(
            f"a volume ({_shown(size)}); 2D is read here, 3D where the recipe has `ndim: 3`", "set-aside"
        )  # fmt: skip
    if ndim == 3 and any(n > 1 for n in size[3:]):
        raise Unreadable(f"{len(size)} axes ({_shown(size)}); one volume is read. Split it", "set-aside")  # fmt: skip
    if ndim == 3 and (len(size) < 3 or min(size[:3]) < 2):
        raise Unreadable(f"a slice ({_shown(size)}); volumes are read where `ndim` is 3", "set-aside")  # fmt: skip
    if ndim == 3:
        return (0, 1, 2)
    first, second = sorted([*long, *(axis for axis in range(len(size)) if axis not in long)][:2])
    return first, second


def _check_numbers(sitk: Any, reader: Any, colours: int) -> None:
    if reader.GetPixelIDValue() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise Unreadable("complex numbers; save magnitude or phase", "set-aside")
    if colours not in (1, 3):
        raise Unreadable(f"{colours} numbers per voxel; one, or three as colours, are read", "set-aside")  # fmt: skip


def _itemsize(sitk: Any, pixel: int) -> int:
    """Bytes of one number of a pixel type."""
    name = str(sitk.GetPixelIDValueAsString(pixel))
    for bits in (8, 16, 32, 64):
        if f"{bits}-bit" in name:
            return bits // 8
    raise Unreadable(f"{name} are no pixels", "set-aside")


def _check_whole(
    path: Path, data: Path | None, fields: dict[str, str], end: int, n_bytes: int
) -> tuple[str, ...]:
    """Notes on voxels that are all there; `Unreadable` where they are not, or packed in a way that is not read."""
    packed = fields.get("encoding", "raw").lower()
    if fields.get("compresseddata", "").lower() in ("true", "1"):
        packed = "gzip"
    elif fields.get("binarydata", "true").lower() not in ("true", "1"):
        packed = "text"
    if packed not in ("raw", "gzip", "gz"):
        raise Unreadable(f"voxels as {packed[:20]!r}; save it raw or with gzip", "set-aside")
    for name in ("line skip", "lineskip", "byte skip", "byteskip", "headersize"):
        if fields.get(name, "0") != "0":
            raise Unreadable(f"'{name}' in its header: save it without", "set-aside")
    with open(data or path, "rb") as handle:
        handle.seek(0 if data else end)
        if packed == "raw":
            return read_plain(handle, n_bytes, keep=False)[1]
        if int(fields.get("compresseddatasize") or 0) > (data or path).stat().st_size:
            raise Unreadable(
                "the file is cut short: its packed data are shorter than its header says"
            )
        return unpack(handle, n_bytes, keep=False)[1]


def _spacing(
    steps: tuple[float, ...], fields: dict[str, str]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(spacing along SimpleITK's axes in mm, notes); none where the header does not say it."""
    if not any(name in fields for name in _SAYS_SPACING):
        return (), ()
    units = {unit.strip() for unit in fields.get("space units", "").split('"') if unit.strip()}
    if not units <= set(_TO_MM) or len(units) > 1:
        return (), ("its spacing is not in a unit of length that is known: taken as unknown",)
    factor = _TO_MM[units.pop()] if units else 1.0
    return tuple(float(step) * factor for step in steps), ()


def _affine(image: Any) -> np.ndarray:
    """[4, 4] from voxels (x, y, z) to RAS."""
    dimension = image.GetDimension()
    made = np.eye(4)
    turn = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3]
    made[:3, :3] = turn * np.asarray(image.GetSpacing())[:3]
    made[:3, 3] = image.GetOrigin()[:3]
    return _TO_RAS @ made


def _orientation(fields: dict[str, str]) -> tuple[str, ...]:
    if any(name in fields for name in _SAYS_ORIENTATION):
        return ()
    return ("no orientation in its header: axes taken as left, posterior, superior",)


def _slope(fields: dict[str, str]) -> tuple[float, float]:
    """(scale, intercept) of MetaImage's way to intensities; 1 and 0 where there is none."""
    scale = float(fields.get("elementtointensityfunctionslope") or 1.0)
    intercept = float(fields.get("elementtointensityfunctionoffset") or 0.0)
    if not (math.isfinite(scale) and math.isfinite(intercept)) or scale == 0:
        raise Unreadable("its slope or offset is not a finite number")
    return scale, intercept


def _shown(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _last_line(error: RuntimeError) -> str:
    """What SimpleITK says, without names of files and addresses."""
    text = " ".join(str(error).rsplit("): ", 1)[-1].split())
    return text.replace("/", " ")[:160]
