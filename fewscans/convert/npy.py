"""A single array in a `.npy` file: [H, W] or [H, W, 3], in 3D [D, H, W] or [D, H, W, 3]; pickles are refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.npz import has_axes, read_header
from fewscans.convert.packed import read_plain


def read_npy(path: Path, kind: str, ndim: int) -> Scan:
    """Scan of a `.npy` file with `ndim` axes of space. It has no spacing, and its axes are taken as they stand.

    Raises
    ------
    Unreadable
        ``set-aside`` for arrays with other axes, and for what are no real numbers.
    """
    with open(path, "rb") as handle:
        shape, fortran, dtype = read_header(handle)
        if dtype.hasobject:
            raise Unreadable("holds Python objects (pickle), which are never loaded")
        if dtype.kind not in "uifb":
            raise Unreadable(f"{dtype} are no pixels", "set-aside")
        if not has_axes(shape, ndim):
            axes = "H, W" if ndim == 2 else "D, H, W"
            needed = f"[{axes}] or [{axes}, 3] is needed where `ndim` is {ndim}"
            raise Unreadable(f"shape {list(shape)}: {needed}", "set-aside")
        check_size(*shape[:ndim][::-1])
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
    meta = Meta(kind, mode, 8 * planes.dtype.itemsize, notes=(*notes, *not_finite))
    return Scan(join_equal_channels(planes), (), meta)
