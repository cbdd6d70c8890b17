"""NIfTI volumes in one orientation: [D, H, W] along superior, anterior, right (RAS), with their spacing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.nifti_file import millimetres, open_image, read_nifti_header
from fewscans.convert.parts import check_count, check_whole, said_of

_COMPLEX = "complex numbers; save magnitude or phase"


def read_volume(path: Path, kind: str, number: int | None = None) -> Scan:
    """Scan of NIfTI (one file or two, gzipped or not) or Analyze 7.5, turned to the nearest RAS axes.

    `number`, from 0, is that of a volume along the fourth axis. No voxel is interpolated.

    Raises
    ------
    Unreadable
        ``set-aside`` for slices, several volumes without a number, vectors, complex numbers and more voxels than are
        read.
    """
    if number is None:
        image, stored, unpacked = open_image(path, kind, _check_one)
    else:
        header = read_nifti_header(path, kind, _count)
        part = number, _count(header.shape)
        image, stored, unpacked = open_image(path, kind, _count, part)
        unpacked = (*said_of(*part, "fourth axis"), *unpacked)
    if image.get_data_dtype().kind == "c":
        raise Unreadable(_COMPLEX, "set-aside")
    stored = stored.reshape(stored.shape[:3])  # further axes have the length 1
    slope, intercept = image.dataobj.slope, image.dataobj.inter  # the header loses them on turning
    zooms = np.asarray(image.header.get_zooms()[:3], dtype=float)
    unit_mm = millimetres(image)
    array, spacing, turned = to_ras(stored, image.affine, zooms * unit_mm)
    notes: tuple[str, ...] = ()
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        spacing = ()
        notes = ("spacing in the header is not a positive number: taken as unknown",)
    voxels, mode = _channels(array)
    voxels, more = make_finite(voxels)
    notes = (*unpacked, *notes, *more, *turned, *_orientation(image))
    meta = Meta(kind, mode, 8 * voxels.dtype.itemsize, float(slope), float(intercept), notes=notes)
    affine = turned_affine(stored.shape, image.affine, unit_mm) if spacing else None
    return Scan(join_equal_channels(voxels), spacing, meta, affine)


def count_volumes(path: Path, kind: str) -> int:
    """Number of volumes along the fourth axis of NIfTI or Analyze 7.5; where they are several, all are there.

    Raises
    ------
    Unreadable
        As `read_volume` does.
    """
    header = read_nifti_header(path, kind, _count)
    count = _count(header.shape)
    if count > 1:
        if header.fields.get_data_dtype().kind == "c":
            raise Unreadable(_COMPLEX, "set-aside")
        check_whole(header.layout(count))
    return count


def to_ras(
    array: np.ndarray, affine: np.ndarray, zooms: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, tuple[float, ...], tuple[str, ...]]:
    """(x, y, z, ...) turned to the nearest RAS axes, its spacing along z, y, x, notes.

    `affine` leads from voxels to RAS in mm; `zooms` are the lengths of a voxel along the array's own axes.

    Raises
    ------
    Unreadable
        The affine has no three axes.
    """
    import nibabel as nib

    turn = nib.orientations.io_orientation(affine)
    if not np.isfinite(turn).all():
        raise Unreadable("its affine has a zero axis: where right and left are cannot be told")
    axis_of = {int(to): axis for axis, (to, _) in enumerate(turn)}
    spacing = tuple(float(zooms[axis_of[i]]) for i in (2, 1, 0))
    codes = "".join(nib.orientations.ornt2axcodes(turn))
    notes = () if codes == "RAS" else (f"turned from {codes} to RAS",)
    return nib.orientations.apply_orientation(array, turn), spacing, notes


def empty_as_ras(
    shape: Sequence[int], dtype: npt.DTypeLike, affine: np.ndarray
) -> npt.NDArray[np.generic]:
    """An array [C, D, H, W] to be filled, which `to_ras` only has to look at from another side: it lies there as RAS.

    `affine` leads from voxels (x, y, z), the last axes backwards, to RAS in mm.
    """
    import nibabel as nib

    turn = nib.orientations.io_orientation(affine)
    if not np.isfinite(turn).all():
        return np.empty(shape, dtype)  # refused by `to_ras`
    spatial = tuple(shape[:0:-1])
    turned = tuple(spatial[int(axis)] for axis in np.argsort(turn[:, 0]))
    made = np.empty((shape[0], *turned[::-1]), dtype).transpose(3, 2, 1, 0)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    return nib.orientations.apply_orientation(made, back).transpose(3, 2, 1, 0)


def turned_affine(
    shape: Sequence[int], affine: np.ndarray, unit_mm: float = 1.0
) -> npt.NDArray[np.float64] | None:
    """From voxels of the array that `to_ras` makes of one of `shape` and `affine` to RAS in mm.

    None where the header says a place that is no number.
    """
    import nibabel as nib

    turn = nib.orientations.io_orientation(affine)
    made = np.asarray(affine, dtype=float) @ nib.orientations.inv_ornt_aff(turn, shape[:3])
    made[:3] *= unit_mm
    return made if np.isfinite(made).all() else None


def _orientation(image: Any) -> tuple[str, ...]:
    """A note where a NIfTI header has a spacing and no affine (both codes 0: method 1 of its standard)."""
    header = image.header
    if "sform_code" not in header or int(header["sform_code"]) or int(header["qform_code"]):
        return ()
    return ("no orientation in its header: axes taken as left, anterior, superior",)


def _check_one(shape: tuple[int, ...]) -> None:
    if (count := _count(shape)) > 1:
        raise Unreadable(f"{count} volumes ({_shown(shape)}); one is read here, as PATH#1", "set-aside")  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    """Number of volumes of an array (x, y, z, volume, ...)."""
    if any(n > 1 for n in shape[4:]):
        raise Unreadable(
            f"{len(shape)} axes ({_shown(shape)}): several numbers per voxel; one volume is read. Split it",
            "set-aside",
        )
    if len(shape) < 3 or min(shape[:3]) < 2:
        check_size(*shape)
        raise Unreadable(f"a slice ({_shown(shape)}); volumes are read where `ndim` is 3", "set-aside")  # fmt: skip
    if 0 in shape[3:]:
        check_size(*shape)
    count = shape[3] if len(shape) > 3 else 1
    check_count(count, *shape[:3])
    return count


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _channels(array: np.ndarray) -> tuple[np.ndarray, str]:
    """(x, y, z) -> ([C, D, H, W], colour mode)."""
    if array.dtype.names:
        planes = [array[name].T for name in array.dtype.names[:3]]
        return np.ascontiguousarray(np.stack(planes)), "RGB"
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array.T)[None], str(array.dtype)
