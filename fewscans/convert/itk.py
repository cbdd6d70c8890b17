"""NRRD and MetaImage (.mha, .mhd) by SimpleITK, with or without a file of their own for the voxels.

SimpleITK reads header and voxels. What it would believe is looked at before: that the voxels lie beside the header (a
header may name any file of the machine), that all of them are there, and how many they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.packed import read_plain, unpack
from fewscans.convert.pairs import MAX_HEADER, data_of, text_header
from fewscans.convert.parts import Layout, check_count, check_whole, read_part, said_of
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


def read_itk(path: Path, kind: str, ndim: int, number: int | None = None) -> Scan:
    """Scan of an NRRD or MetaImage file: an image as its rows lie, a volume turned to the nearest RAS axes.

    `number`, from 0, is that of a volume along a fourth axis, or a list of NRRD.

    Raises
    ------
    Unreadable
        ``set-aside`` for what has other axes than `ndim`, several volumes without a number, complex or several numbers
        per voxel (colours apart), and voxels of another folder; voxels that are not all there.
    """
    header = _read_header(path, kind, ndim)
    size, colours, fields = header.size, header.colours, header.fields
    if number is None:
        if header.volumes > 1:
            raise Unreadable(
                f"{header.volumes} volumes ({_shown(header.axes)}); one is read here, as PATH#1", "set-aside"
            )  # fmt: skip
        notes = header.check_whole(path)
        try:
            image = header.reader.Execute()
        except RuntimeError as error:
            raise Unreadable(f"damaged ({_last_line(error)})") from None
        array = header.sitk.GetArrayFromImage(image)
        if tuple(array.shape[: len(size)][::-1]) != size:
            raise Unreadable(
                f"its header says {_shown(size)}; it holds {_shown(array.shape[::-1])}"
            )
    else:
        image = header.reader  # which says where its voxels lie, too
        data, notes = read_part(header.layout(path), number)
        notes = (*said_of(number, header.volumes, header.along), *notes)
        dtype = header.dtype.newbyteorder(">" if _is_big_endian(fields) else "<")
        array = np.frombuffer(data, dtype).astype(header.dtype, copy=False)
        array = array.reshape(*size[2::-1], *([colours] if colours > 1 else []))
    planes = np.moveaxis(array, -1, 0) if colours > 1 else array[None]
    planes = planes.reshape(planes.shape[0], *(size[axis] for axis in reversed(header.kept)))
    spacing, more = _spacing(image.GetSpacing(), fields)
    affine = None
    if ndim == 3:
        if spacing and all(image.GetSpacing()[:3]):
            unit_mm = spacing[0] / image.GetSpacing()[0]
            affine = turned_affine(planes.shape[:0:-1], _affine(image), unit_mm)
        turned, spacing, how = to_ras(
            planes.transpose(3, 2, 1, 0), _affine(image), spacing or (0.0,) * 3
        )
        planes, more = turned.transpose(3, 2, 1, 0), (*more, *how, *_orientation(fields))
    else:
        spacing = tuple(spacing[axis] for axis in reversed(header.kept)) if spacing else ()
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        spacing = ()
    planes, not_finite = make_finite(np.ascontiguousarray(planes))
    scale, intercept = _slope(fields)
    mode = "RGB" if colours > 1 else str(planes.dtype)
    notes = (*notes, *more, *not_finite)
    meta = Meta(kind, mode, 8 * planes.dtype.itemsize, scale, intercept, notes=notes)
    return Scan(join_equal_channels(planes), spacing, meta, affine if spacing else None)


def count_volumes(path: Path, kind: str) -> int:
    """Number of volumes along the fourth axis, or a list of NRRD; where they are several, all are there.

    Raises
    ------
    Unreadable
        As `read_itk` does in 3D.
    """
    if not _may_be_several(path):
        return 1  # the rest is looked at when it is read
    header = _read_header(path, kind, 3)
    if header.volumes > 1:
        check_whole(header.layout(path))
    return header.volumes


@dataclass(frozen=True)
class _Header:
    """What a file says of itself, looked at before SimpleITK may read its voxels.

    Attributes
    ----------
    sitk, reader : module, SimpleITK.ImageFileReader
        Which has read the header.
    fields, end : dict, int
        The header as text, and where it ends.
    data : Path or None
        File of the voxels, where it is another one.
    size : tuple of int
        As SimpleITK has it, without a list.
    kept : tuple of int
        The axes of space.
    colours, volumes : int
        Numbers per voxel; volumes, which are a fourth axis or a list.
    woven, listed : bool
        Whether the numbers of all volumes at one place lie side by side; whether volumes are a list.
    dtype : numpy dtype
        Of one number, in the order of this machine.
    """

    sitk: Any
    reader: Any
    fields: dict[str, str]
    end: int
    data: Path | None
    size: tuple[int, ...]
    kept: tuple[int, ...]
    colours: int
    volumes: int
    woven: bool
    listed: bool
    dtype: np.dtype[np.generic]

    @property
    def axes(self) -> tuple[int, ...]:
        """Size with the volumes behind."""
        return (*self.size[:3], self.volumes)

    @property
    def along(self) -> str:
        """What the volumes are counted along, in words."""
        return "list" if self.listed else "fourth axis"

    def layout(self, path: Path) -> Layout:
        """Where the volumes lie."""
        n_bytes = math.prod(self.size[:3]) * self.colours * self.dtype.itemsize
        start = 0 if self.data else self.end
        woven = self.dtype.itemsize if self.woven else 0
        return Layout(self.data or path, start, 0, n_bytes, self.volumes, self.packed(path), woven)

    def packed(self, path: Path) -> bool:
        """Whether the voxels are packed; what is packed must not be shorter than the header says."""
        packed = _is_packed(self.fields)
        said = int(self.fields.get("compresseddatasize") or 0) if packed else 0
        if said > (self.data or path).stat().st_size:
            raise Unreadable(
                "the file is cut short: its packed data are shorter than its header says"
            )
        return packed

    def check_whole(self, path: Path) -> tuple[str, ...]:
        """Notes on voxels that are all there; `Unreadable` where they are not."""
        n_bytes = math.prod(self.size) * self.colours * self.dtype.itemsize
        check = unpack if self.packed(path) else read_plain
        with open(self.data or path, "rb") as handle:
            handle.seek(0 if self.data else self.end)
            return check(handle, n_bytes, keep=False)[1]


def _read_header(path: Path, kind: str, ndim: int) -> _Header:
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        fields, end = text_header(_head(path))
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
        colours, volumes = reader.GetNumberOfComponents(), math.prod(size[3:]) if ndim == 3 else 1
        place = _list_at(fields) if ndim == 3 and colours > 1 and volumes == 1 else -1
        if place in (1, 2):
            raise Unreadable("its list is between axes of space; put it first or last", "set-aside")
        if place in (0, 3):
            volumes, colours = colours, 1
            check_count(volumes, *size[:3])
        _check_numbers(sitk, reader, colours)
        dtype = _dtype(sitk, reader.GetPixelIDValue())
    except RuntimeError as error:
        raise Unreadable(f"damaged ({_last_line(error)})") from None
    return _Header(
        sitk, reader, fields, end, data, size, kept, colours, volumes, place == 0, place >= 0, dtype
    )


def _list_at(fields: dict[str, str]) -> int:
    """Which axis of four an NRRD calls a list (of volumes, as in diffusion); -1 where none: colours, vectors."""
    kinds = fields.get("kinds", "").lower().split()
    return kinds.index("list") if len(kinds) == 4 and kinds.count("list") == 1 else -1


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
    """The axes of space: `ndim` of them, the others of length 1; in 3D the fourth may be longer."""
    long = [axis for axis, n in enumerate(size) if n > 1]
    if ndim == 2:
        check_size(*size)
        if len(long) > 2:
            raise Unreadable(
                f"a volume ({_shown(size)}); 2D is read here, 3D where the recipe has `ndim: 3`", "set-aside"
            )  # fmt: skip
        first, second = sorted([*long, *(axis for axis in range(len(size)) if axis not in long)][:2])  # fmt: skip
        return first, second
    if any(n > 1 for n in size[4:]):
        raise Unreadable(f"{len(size)} axes ({_shown(size)}); one volume is read. Split it", "set-aside")  # fmt: skip
    if len(size) < 3 or min(size[:3]) < 2:
        check_size(*size)
        raise Unreadable(f"a slice ({_shown(size)}); volumes are read where `ndim` is 3", "set-aside")  # fmt: skip
    check_count(math.prod(size[3:]), *size[:3])
    return (0, 1, 2)


def _check_numbers(sitk: Any, reader: Any, colours: int) -> None:
    if reader.GetPixelIDValue() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise Unreadable("complex numbers; save magnitude or phase", "set-aside")
    if colours not in (1, 3):
        raise Unreadable(f"{colours} numbers per voxel; one, or three as colours, are read", "set-aside")  # fmt: skip


def _dtype(sitk: Any, pixel: int) -> np.dtype[np.generic]:
    """Type of one number of a pixel type."""
    name = str(sitk.GetPixelIDValueAsString(pixel))
    kind = "f" if "float" in name else "u" if "unsigned" in name else "i"
    for bits in (8, 16, 32, 64):
        if f"{bits}-bit" in name:
            return np.dtype(f"{kind}{bits // 8}")
    raise Unreadable(f"{name} are no pixels", "set-aside")


def _is_packed(fields: dict[str, str]) -> bool:
    """Whether voxels are packed; `Unreadable` where it is in a way that is not read."""
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
    return packed != "raw"


def _is_big_endian(fields: dict[str, str]) -> bool:
    names = ("binarydatabyteordermsb", "elementbyteordermsb")
    return fields.get("endian", "little").lower() == "big" or any(
        fields.get(name, "false").lower() in ("true", "1") for name in names
    )


def _may_be_several(path: Path) -> bool:
    """Whether a header speaks of a fourth axis, or of a list: most do not, and SimpleITK need not look at them."""
    try:
        fields, _ = text_header(_head(path))
    except ValueError:
        return False
    sizes = fields.get("sizes", fields.get("dimsize", "")).split()
    return len(sizes) > 3


def _head(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(MAX_HEADER)


def _spacing(
    steps: tuple[float, ...], fields: dict[str, str]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(spacing along SimpleITK's axes in mm, notes); none where the header does not say it."""
    if not any(name in fields for name in _SAYS_SPACING):
        return (), ()
    said = [unit.strip() for unit in fields.get("space units", "").split('"')]
    units = set([unit for unit in said if unit][:3])  # a fourth is of time
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
