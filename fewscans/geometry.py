"""One geometry for all scans: resampling that neither aliases nor shifts, and one shape.

Written over axes, so that 2D and 3D share it. Pixel centres lie at half-integers (the image's
border, not the centre of its first pixel, stays where it is).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

# Values that are resampled in one go, so that they stay in the cache of a processor as float64, and those that go from
# axis to axis together.
_BLOCK, _PART = 2**17, 2**20


@lru_cache(maxsize=64)
def resampling_weights(n_in: int, n_out: int, pitch: float | None = None) -> csr_array:
    """Matrix [n_out, n_in] of linear interpolation along an axis, widened where it shrinks.

    `pitch` is the number of source pixels from a new one to the next; the new ones then lie around
    the middle of the axis. Without it they fill the axis. The triangle covers 2 * pitch pixels, so
    that every source pixel counts (no aliasing) and rows add up to 1 (a constant stays constant).
    The same filter as Pillow's BILINEAR and torch's ``antialias=True``. Kept for the next scan of this
    size: it is not to be changed.
    """
    scale = n_in / n_out if pitch is None else pitch
    support = max(scale, 1.0)
    begin = 0.0 if pitch is None else (n_in - n_out * scale) / 2
    centres = begin + (np.arange(n_out) + 0.5) * scale
    first = np.floor(centres - support).astype(int)
    offsets = np.arange(int(np.ceil(2 * support)) + 2)
    columns = first[:, None] + offsets[None]
    weights = np.clip(1 - np.abs(columns + 0.5 - centres[:, None]) / support, 0, None)
    weights[(columns < 0) | (columns >= n_in)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(n_out), offsets.size)
    kept = weights.ravel() > 0
    pairs = (rows[kept], columns.ravel()[kept])
    return csr_array((weights.ravel()[kept], pairs), shape=(n_out, n_in))


def resize(
    image: npt.NDArray[np.generic],
    shape: Sequence[int],
    pitch: Sequence[float] | None = None,
) -> npt.NDArray[np.float64]:
    """[C, *axes] of any type of number -> [C, *shape] float64. Values stay within the range of the input.

    With `pitch` (source pixels from a new one to the next, for each axis) what is longer than `shape`
    is cut off on both sides. Axes go one after the other, a part of the image at a time: it is never there as float64.
    """
    made: npt.NDArray[Any] = np.asarray(image)
    steps = []
    for axis, n_out in enumerate(shape, start=1):
        n_in = made.shape[axis]
        step = None if pitch is None else pitch[axis - 1]
        if n_in == n_out and step in (None, 1):
            continue
        weights = resampling_weights(n_in, n_out, step)
        first, behind = int(weights.indices.min()), int(weights.indices.max()) + 1
        # What no new pixel is made of is cut off before anything is added up.
        made = made[(slice(None),) * axis + (slice(first, behind),)]
        steps.append((axis, weights[:, first:behind]))
    last = made.ndim - 1
    if inner := [step for step in steps if step[0] != last]:
        wide = max(1, _PART * made.shape[last] // made.size)
        parts = [made[..., i : i + wide] for i in range(0, made.shape[last], wide)]
        made = np.concatenate([_through(part, inner) for part in parts], axis=last)
    made = _through(made, [step for step in steps if step[0] == last])
    return np.ascontiguousarray(made, dtype=np.float64)


def _through(image: npt.NDArray[Any], steps: Sequence[tuple[int, csr_array]]) -> npt.NDArray[Any]:
    for axis, weights in steps:
        image = _along(image, axis, weights)
    return image


def _along(image: npt.NDArray[Any], axis: int, weights: csr_array) -> npt.NDArray[np.float64]:
    """`image` with `weights` [n_out, n_in] applied along `axis`."""
    n_out, n_in = weights.shape
    before, behind = image.shape[:axis], image.shape[axis + 1 :]
    # Axes before and behind as one each; where the image is a cut, this copies it.
    lines = image.reshape(prod(before), n_in, prod(behind))
    made = np.empty((lines.shape[0], n_out, lines.shape[2]))
    wide = max(1, min(lines.shape[2], _BLOCK // n_in))
    deep = max(1, _BLOCK // (n_in * wide))
    for i in range(0, lines.shape[0], deep):
        for j in range(0, lines.shape[2], wide):
            part = lines[i : i + deep, :, j : j + wide].transpose(1, 0, 2)
            # A sparse product adds in a fixed order: the same bytes whatever the number of threads.
            done = weights @ part.astype(np.float64, order="C").reshape(n_in, -1)
            done = done.reshape(n_out, *part.shape[1:])
            made[i : i + deep, :, j : j + wide] = done.transpose(1, 0, 2)
    return made.reshape(*before, n_out, *behind)


def fitted_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], size: int, fit: str
) -> tuple[int, ...]:
    """Axes of the resized image before padding.

    ``stretch``: `size` along every axis. ``pad``: the longest axis, in mm, gets `size`, the others
    what keeps the aspect (at least 1). Without spacing, pixels are taken as square.
    """
    if fit == "stretch":
        return (size,) * len(shape)
    spacing = spacing_mm if len(spacing_mm) == len(shape) else (1.0,) * len(shape)
    extent = [n * step for n, step in zip(shape, spacing, strict=True)]
    return tuple(max(1, round(size * length / max(extent))) for length in extent)


def fitted_spacing(
    shape: Sequence[int], spacing_mm: Sequence[float], fitted: Sequence[int]
) -> tuple[float, ...]:
    """Spacing of the resized image in mm, for each axis; empty where it was not known."""
    if len(spacing_mm) != len(shape):
        return ()
    return tuple(n * step / n_out for n, step, n_out in zip(shape, spacing_mm, fitted, strict=True))


def centred_grid(
    shape: Sequence[int], spacing_mm: Sequence[float], size: int, wanted_mm: Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """(samples, pitch, spacing_mm) of a grid around the middle of the image, at most `size` along an axis.

    With `wanted_mm` that is its spacing. Without it, the shortest axis, in mm, gets `size`, and of the
    others the middle; without `spacing_mm`, pixels are taken as square.

    Raises
    ------
    ValueError
        `wanted_mm` is given, and the image has no spacing.
    """
    known = len(spacing_mm) == len(shape)
    if wanted_mm is not None and not known:
        raise ValueError("a spacing is wanted of an image that has none")
    steps = tuple(spacing_mm) if known else (1.0,) * len(shape)
    shortest = min(n * step for n, step in zip(shape, steps, strict=True))
    wanted = tuple(wanted_mm or (shortest / size,) * len(shape))
    pitch = tuple(want / step for want, step in zip(wanted, steps, strict=True))
    samples = tuple(max(1, min(size, round(n / one))) for n, one in zip(shape, pitch, strict=True))
    return samples, pitch, wanted if known else ()


def pad_to_shape(
    image: npt.NDArray[np.float64], axes: Sequence[int], value: float
) -> npt.NDArray[np.float64]:
    """[C, ...] -> [C, *axes], the image in the middle and `value` around it."""
    missing = [wanted - n for wanted, n in zip(axes, image.shape[1:], strict=True)]
    widths = [(0, 0), *((gap // 2, gap - gap // 2) for gap in missing)]
    return np.pad(image, widths, constant_values=value) if any(missing) else image
