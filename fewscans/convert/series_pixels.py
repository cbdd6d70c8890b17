"""The voxels of a DICOM volume: planes in physical order, corrected where that is well defined, turned to RAS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewscans.convert import (
    MAX_VOXELS,
    Meta,
    Scan,
    Unreadable,
    check_size,
    join_equal_channels,
    make_finite,
    to_physical,
)
from fewscans.convert.decoding import decode
from fewscans.convert.dicom import check_is_image, values_of
from fewscans.convert.frames import Frame, read_frames
from fewscans.convert.headers import Header, Pixels, read_header, read_pixels
from fewscans.convert.mosaic import cut_tile
from fewscans.convert.padding import Mask, Padding, fill_padding
from fewscans.convert.quiet import quiet
from fewscans.convert.series import Volume, find_volumes
from fewscans.convert.stack import Stack, arrange, make_even, move_plane
from fewscans.convert.volume import empty_as_ras, to_ras, turned_affine

Array = npt.NDArray[np.generic]


def read_series(volume: Volume) -> Scan:
    """The volume as a scan: [C, D, H, W] in RAS as NIfTI is read, with its spacing.

    Stored numbers are kept where all planes have one way to physical values; else the array holds physical values.
    Files are opened one by one; beside the volume one of them is in memory.

    Raises
    ------
    Unreadable
        Planes that make no volume (``set-aside``); pixels that cannot be decoded.
    """
    if volume.problem:
        raise Unreadable(volume.problem, "set-aside", "DICOM")
    stack = arrange(volume.frames)
    check_size(stack.grid[3], stack.grid[2], len(stack.places), most=MAX_VOXELS)
    voxels, metas, paddings, doubled = _stored(stack)
    voxels, meta = _in_one_scale(voxels, metas, paddings)
    if np.abs(stack.shift).max() > 0:
        voxels = _upright(voxels, stack, fill=voxels.min() if meta.scale > 0 else voxels.max())
    if not stack.even:
        voxels = make_even(voxels, stack.at_mm)
    between_rows, between_columns = stack.places[0][0].spacing_mm
    zooms = (between_columns, between_rows, round(stack.step_mm, 6))  # a nanometre is rounding
    affine = turned_affine(voxels.shape[:0:-1], stack.affine)
    turned, spacing, how = to_ras(voxels.transpose(3, 2, 1, 0), stack.affine, zooms)
    array, not_finite = make_finite(np.ascontiguousarray(turned.transpose(3, 2, 1, 0)))
    notes = [
        *volume.notes,
        *volume.frames[0].notes,
        *doubled,
        *stack.notes,
        *meta.notes,
        *how,
        *not_finite,
    ]
    meta = replace(meta, notes=tuple(dict.fromkeys(notes)))
    return Scan(join_equal_channels(array), spacing, meta, affine)


def read_one_volume(path: Path, kind: str) -> Scan:
    """The volume of a file that holds one: an enhanced object, a mosaic.

    Raises
    ------
    Unreadable
        ``set-aside`` for a slice, and for several volumes.
    """
    volumes = find_volumes(read_frames(path))
    if len(volumes) > 1:
        raise Unreadable(f"{len(volumes)} volumes in one file", "set-aside")
    return read_series(volumes[0])


def _stored(stack: Stack) -> tuple[Array, list[Meta], list[Padding | None], tuple[str, ...]]:
    """([C, D, H, W] as stored, what each plane says of its values, its padding, notes).

    Doubles are compared and left out.
    """
    place_of = {id(frame): k for k, place in enumerate(stack.places) for frame in place}
    voxels: Array | None = None
    metas: dict[int, Meta] = {}
    paddings: dict[int, Padding | None] = {}
    doubled = 0
    for frame, pixels, meta, padding in _planes(
        [frame for place in stack.places for frame in place]
    ):
        k = place_of[id(frame)]
        if voxels is None:
            voxels = empty_as_ras(
                (pixels.shape[0], len(stack.places), *pixels.shape[1:]), pixels.dtype, stack.affine
            )
        if pixels.shape != (voxels.shape[0], *voxels.shape[2:]):
            raise Unreadable(f"a slice of shape {pixels.shape} among others of {voxels.shape[2:]}")
        if k in metas:
            doubled += 1
            _check_equal((voxels[:, k], metas[k]), (pixels, meta), float(stack.at_mm[k]))
            continue
        both = np.result_type(voxels.dtype, pixels.dtype)
        voxels = voxels.astype(both, copy=False)
        voxels[:, k], metas[k], paddings[k] = pixels, meta, padding
    assert voxels is not None  # a stack has two places at least
    slices = "a doubled slice" if doubled == 1 else f"{doubled} doubled slices"
    note = (f"{slices}, equal to the first at the place, left out",) if doubled else ()
    each = range(len(stack.places))
    return voxels, [metas[k] for k in each], [paddings[k] for k in each], note


def _planes(frames: Sequence[Frame]) -> Iterator[tuple[Frame, Array, Meta, Padding | None]]:
    """Each frame with its pixels [C, H, W], what the file says of them, and padding; a file at a time."""
    files: defaultdict[Path, list[Frame]] = defaultdict(list)
    for frame in frames:
        files[frame.file].append(frame)
    for path, members in files.items():
        numbers = sorted({frame.number for frame in members})
        with quiet():
            header, stored = _open(path, path.stat().st_mtime_ns)
            whole = check_is_image(header) == len(numbers)
            decoded = decode(path, header, stored) if whole else None
        for number in numbers:
            with quiet():
                found = decoded or decode(path, header, stored, number)
                pixels = found.planes[number if whole else 0]
                pixels, padding, meta = values_of(header, pixels, found, number)
            meta = replace(meta, notes=(*found.notes, *meta.notes))
            for frame in (frame for frame in members if frame.number == number):
                whole_or_tile = pixels
                if frame.tile >= 0:
                    whole_or_tile = cut_tile(pixels, frame.tile, frame.n_rows, frame.n_columns)
                yield frame, whole_or_tile, meta, padding


@lru_cache(maxsize=1)
def _open(path: Path, changed: int) -> tuple[Header, Pixels]:
    """The file, kept while the next volume comes from it too; `changed` makes a new file a new one."""
    header = read_header(path)
    return header, read_pixels(path, header)


def _check_equal(one: tuple[Array, Meta], other: tuple[Array, Meta], at_mm: float) -> None:
    first, second = (to_physical(pixels, meta.scale, meta.intercept) for pixels, meta in (one, other))  # fmt: skip
    if not np.array_equal(first, second, equal_nan=True):
        raise Unreadable(
            f"different slices at one place ({at_mm:.4g} mm from the first), and nothing tells them apart",
            "set-aside",
        )


def _in_one_scale(
    voxels: Array, metas: Sequence[Meta], paddings: Sequence[Padding | None]
) -> tuple[Array, Meta]:
    """(voxels, their meta): as stored where all planes are scaled alike, else physical values as float32.

    Padding becomes the lowest real value of all planes, before anything is interpolated between it and tissue.
    """

    def padded(k: int) -> Mask | None:
        padding = paddings[k]
        return None if padding is None else padding.of(voxels[:, k])

    first = metas[0]
    if len({meta.unit for meta in metas}) > 1:
        units = ", ".join(sorted({meta.unit or "none" for meta in metas}))
        raise Unreadable(f"its slices have different units ({units})", "set-aside")
    notes = tuple(dict.fromkeys(note for meta in metas for note in meta.notes))
    bits = max(meta.bits for meta in metas)
    if len({(meta.scale, meta.intercept) for meta in metas}) == 1:
        if any(paddings):
            notes = (*notes, *fill_padding(voxels, padded, first.scale < 0))
        return voxels, replace(first, bits=bits, notes=notes)
    physical = np.empty(voxels.shape, np.float32)
    for k, meta in enumerate(metas):
        physical[:, k] = to_physical(voxels[:, k], meta.scale, meta.intercept)
    if any(paddings):
        notes = (*notes, *fill_padding(physical, padded, False))
    note = "slices are scaled differently: physical values are kept"
    return physical, replace(first, bits=bits, scale=1.0, intercept=0.0, notes=(*notes, note))


def _upright(voxels: Array, stack: Stack, fill: float) -> Array:
    """The planes moved to the stack's grid."""
    _, _, rows, columns = stack.grid
    made = np.empty((*voxels.shape[:2], rows, columns), voxels.dtype)
    for k, shift in enumerate(stack.shift.tolist()):
        made[:, k] = move_plane(voxels[:, k], shift, stack.grid, float(fill))
    return made
