"""A single array in a `.npy` file: [H, W] or [H, W, 3], in 3D [D, H, W], [D, H, W, 3] or [n, D, H, W]; no pickles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.npz import has_axes, read_header
from fewscans.convert.packed import read_plain
from fewscans.convert.parts import Layout, check_count, check_whole, read_part, said_of


def read_npy(path: Path, kind: str, ndim: int, number: int | None = None) -> Scan:
    """Scan of a `.npy` file with `ndim` axes of space. It has no spacing, and its axes are taken as they stand.

    `number`, from 0, is that of a volume of several, [n, D, H, W].

    Raises
    ------
    Unreadable
        ``set-aside`` for arrays with other axes, for several volumes without a number, and for what are no real
        numbers.
    """
    shape, fortran, dtype, start = _header(path)
    said: tuple[str, ...] = ()
    if number is not None:
        if _count(shape) < 2:
            raise Unreadable("holds one volume", "set-aside")
        data, notes = read_part(_layout(path, shape, fortran, dtype, start), number)
        said = said_of(number, shape[0], "first axis")
        shape = shape[1:]
    else:
        if ndim == 3 and (count := _count(shape)) > 1:
            raise Unreadable(f"{count} volumes {list(shape)}; one is read here, as PATH#1", "set-aside")  # fmt: skip
        _check_axes(shape, ndim)
        with open(path, "rb") as handle:
            handle.seek(start)
            data, notes = read_plain(handle, math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    planes = np.moveaxis(array, -1, 0) if array.ndim > ndim else array[None]
    planes = np.ascontiguousarray(planes.astype(planes.dtype.newbyteorder("="), copy=False))
    planes, not_finite = make_finite(planes)
    mode = "RGB" if planes.shape[0] == 3 else str(planes.dtype)
    meta = Meta(kind, mode, 8 * planes.dtype.itemsize, notes=(*said, *notes, *not_finite))
    return Scan(join_equal_channels(planes), (), meta)


def count_volumes(path: Path) -> int:
    """Number of volumes [n, D, H, W]; where they are several, all are there.

    Raises
    ------
    Unreadable
        As `read_npy` does in 3D.
    """
    shape, fortran, dtype, start = _header(path)
    count = _count(shape)
    if count > 1:
        check_whole(_layout(path, shape, fortran, dtype, start))
    return count


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """(shape, whether in Fortran order, dtype, byte at which the numbers begin)."""
    with open(path, "rb") as handle:
        shape, fortran, dtype = read_header(handle)
        start = handle.tell()
    if dtype.hasobject:
        raise Unreadable("holds Python objects (pickle), which are never loaded")
    if dtype.kind not in "uifb":
        raise Unreadable(f"{dtype} are no pixels", "set-aside")
    return shape, fortran, dtype, start


def _check_axes(shape: tuple[int, ...], ndim: int) -> None:
    if not has_axes(shape, ndim):
        axes = "H, W" if ndim == 2 else "D, H, W"
        needed = f"[{axes}] or [{axes}, 3] is needed where `ndim` is {ndim}"
        raise Unreadable(f"shape {list(shape)}: {needed}", "set-aside")
    check_size(*shape[:ndim][::-1])


def _count(shape: tuple[int, ...]) -> int:
    """Number of volumes of an array; 1 where it has no axis for them."""
    if len(shape) != 4 or has_axes(shape, 3):
        return 1
    if shape[-1] < min(shape[:-1]):
        raise Unreadable(
            f"shape {list(shape)}: the last axis is the shortest, so it may count volumes or channels; "
            "save it as [n, D, H, W]",
            "set-aside",
        )
    check_count(shape[0], *shape[:0:-1])
    return shape[0]


def _layout(
    path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[np.generic], start: int
) -> Layout:
    """Where the volumes [n, D, H, W] lie; in Fortran order n comes first."""
    n_bytes = math.prod(shape[1:]) * dtype.itemsize
    return Layout(path, start, 0, n_bytes, shape[0], False, dtype.itemsize if fortran else 0)
