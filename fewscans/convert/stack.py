"""Whether planes make a volume, in which order, and what has to be done to their pixels; geometry alone.

Order and distances are those along the slice normal (row x column), never of names or instance numbers; where the
gantry is tilted, z differs from both.

- **Doubled**: planes at one place; their pixels decide (`fewscans.convert.series_pixels`).
- **Tilted**: planes whose first pixels lie on a line that is not the normal. Each is moved within its plane (linear
  interpolation), on a grid large enough to cut nothing off; what is outside is filled.
- **Uneven**: where neighbours touch or overlap (no distance is larger than their thickness), nothing between them was
  left out, and as many planes at even distances are interpolated. Where something was left out, the volume is refused:
  what lay there would be made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewscans.convert import Unreadable
from fewscans.convert.frames import Frame, normal_of

Floats = npt.NDArray[np.float64]

# Of the distance of neighbours: less is rounding in the header.
_EVEN = 0.02
# Of a pixel or of the thickness, whichever is less: closer planes are at one place.
_SAME = 0.02
# Pixels: planes shifted by less, from first to last, are not moved.
_UPRIGHT_PIXELS = 0.1
# Pixels that a plane may lie beside the line of a tilted gantry.
_BESIDE_PIXELS = 0.5
_MOST_TILT_DEGREES = 45.0


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in order, and the grid that they are put on.

    Attributes
    ----------
    places : tuple of tuple of Frame
        From low to high along the normal; several at a place are doubles.
    at_mm : [n]
        Distance of each place from the first.
    shift : [n, 2]
        Pixels (down, right) by which a plane lies beside the grid; all 0 without tilt.
    grid : (first row, first column, rows, columns)
        Of the grid, counted in pixels of the first plane.
    step_mm : float
        Between planes of the result.
    even : bool
        Whether the planes are at these distances already.
    notes : tuple of str
    """

    places: tuple[tuple[Frame, ...], ...]
    at_mm: Floats
    shift: Floats
    grid: tuple[int, int, int, int]
    step_mm: float
    even: bool
    notes: tuple[str, ...]

    @property
    def affine(self) -> Floats:
        """[4, 4] from (column, row, plane) to RAS in mm."""
        first = self.places[0][0]
        right = np.array(first.row) * first.spacing_mm[1]
        down = np.array(first.column) * first.spacing_mm[0]
        made = np.eye(4)
        made[:3, 0], made[:3, 1], made[:3, 2] = right, down, normal_of(first) * self.step_mm
        made[:3, 3] = np.array(first.position) + self.grid[0] * down + self.grid[1] * right
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ made  # LPS to RAS


def find_places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames by place along the normal of the first, from low to high; those at one place together."""
    if not frames:
        return []
    normal = normal_of(frames[0])
    at = {id(frame): float(np.dot(frame.position, normal)) for frame in frames}
    thick = [frame.thickness_mm for frame in frames if frame.thickness_mm > 0]
    same = _SAME * min([*frames[0].spacing_mm, *thick])
    places: list[list[Frame]] = []
    last = -np.inf
    for frame in sorted(frames, key=lambda f: (at[id(f)], f.instance, f.number, f.tile)):
        if at[id(frame)] - last > same:
            places.append([])
            last = at[id(frame)]
        places[-1].append(frame)
    return places


def arrange(frames: Sequence[Frame]) -> Stack:
    """The stack of planes of one orientation and size.

    Raises
    ------
    Unreadable
        ``set-aside``: one place only, slices missing, planes that lie beside each other.
    """
    places = find_places(frames)
    if len(places) < 2:
        raise Unreadable("one slice; a volume has two at least", "set-aside")
    first = places[0][0]
    normal = normal_of(first)
    positions = np.array([place[0].position for place in places]) - np.array(first.position)
    at = positions @ normal
    beside = positions - at[:, None] * normal
    shift = np.stack(
        [
            beside @ np.array(first.column) / first.spacing_mm[0],
            beside @ np.array(first.row) / first.spacing_mm[1],
        ],
        axis=1,
    )
    shift, tilted = _check_tilt(shift, at, first)
    low, high = np.floor(shift.min(axis=0)).astype(int), np.ceil(shift.max(axis=0)).astype(int)
    rows, columns = first.n_rows + high[0] - low[0], first.n_columns + high[1] - low[1]
    step, even, uneven = _check_even(at, np.array([place[0].thickness_mm for place in places]))
    return Stack(
        tuple(map(tuple, places)),
        at,
        shift,
        (int(low[0]), int(low[1]), int(rows), int(columns)),
        step,
        even,
        (*tilted, *uneven),
    )


def _check_tilt(shift: Floats, at: Floats, first: Frame) -> tuple[Floats, tuple[str, ...]]:
    """([n, 2] shifts in pixels that have to be undone, notes)."""
    if np.abs(shift).max() < _UPRIGHT_PIXELS:
        return np.zeros_like(shift), ()
    slope = at @ shift / (at @ at)  # pixels per mm, of the line through the first plane
    if np.abs(shift - at[:, None] * slope).max() > _BESIDE_PIXELS:
        raise Unreadable(
            f"its slices do not lie on a line (up to {np.abs(shift).max():.1f} pixels beside each other)",
            "set-aside",
        )
    degrees = float(np.degrees(np.arctan(np.linalg.norm(slope * np.array(first.spacing_mm)))))
    if degrees > _MOST_TILT_DEGREES:
        raise Unreadable(f"its slices are tilted by {degrees:.0f} degrees: no stack", "set-aside")
    return np.round(shift, 6), (f"tilt of {degrees:.1f} degrees sheared back",)


def _check_even(at: Floats, thickness: Floats) -> tuple[float, bool, tuple[str, ...]]:
    """(distance of planes in the result, whether they have it already, notes)."""
    steps = np.diff(at)
    usual, mean = float(np.median(steps)), float(at[-1] / len(steps))
    if np.abs(steps - usual).max() <= _EVEN * usual:
        return mean, True, ()
    covered = (thickness[:-1] + thickness[1:]) / 2
    holes = steps > covered * (1 + _EVEN)
    if holes.any():
        multiples = steps / usual
        whole = np.abs(multiples - np.round(multiples)).max() <= 5 * _EVEN
        n = int((np.round(multiples) - 1).sum())
        what = f"{n} slices are missing" if whole and n > 1 else "slices are missing or uneven"
        what = "a slice is missing" if whole and n == 1 else what
        raise Unreadable(
            f"{what}: up to {steps.max():.4g} mm between neighbours where {usual:.4g} mm is usual",
            "set-aside",
        )
    return (
        mean,
        False,
        (
            f"distances of {steps.min():.4g} to {steps.max():.4g} mm, all within the thickness: "
            f"resampled to {mean:.4g} mm",
        ),
    )


def move_plane(
    plane: npt.NDArray[np.generic],
    shift: Sequence[float],
    grid: tuple[int, int, int, int],
    fill: float,
) -> npt.NDArray[np.generic]:
    """[C, H, W] -> [C, rows, columns] on `grid`, from where it lies `shift` pixels down and right."""
    top, left, rows, columns = grid
    made = _along(plane.astype(np.float64), 1, top - shift[0], rows, fill)
    made = _along(made, 2, left - shift[1], columns, fill)
    return as_type(made, plane.dtype)


def _along(array: Floats, axis: int, start: float, n: int, fill: float) -> Floats:
    """`n` places from `start` on along `axis`, between neighbours; `fill` beyond the ends."""
    widths = [(1, 1) if i == axis else (0, 0) for i in range(array.ndim)]
    padded = np.pad(array, widths, constant_values=fill)
    where = start + np.arange(n)
    low = np.floor(where).astype(int)
    share = (where - low).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    last = padded.shape[axis] - 1
    below = np.take(padded, np.clip(low + 1, 0, last), axis)
    above = np.take(padded, np.clip(low + 2, 0, last), axis)
    return below * (1 - share) + above * share


def make_even(voxels: npt.NDArray[np.generic], at_mm: Floats) -> npt.NDArray[np.generic]:
    """[C, D, H, W] at the places `at_mm` -> as many planes, at even distances from first to last."""
    made = np.empty_like(voxels)
    for k, place in enumerate(np.linspace(0, at_mm[-1], len(at_mm))):
        below = int(np.clip(np.searchsorted(at_mm, place, "right") - 1, 0, len(at_mm) - 2))
        share = (place - at_mm[below]) / (at_mm[below + 1] - at_mm[below])
        plane = voxels[:, below] * (1 - share) + voxels[:, below + 1] * share
        made[:, k] = as_type(plane, voxels.dtype)
    return made


def as_type(array: npt.NDArray[np.floating], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """`array` as `dtype`; whole numbers are rounded to the nearest, not cut."""
    wanted = np.dtype(dtype)
    if wanted.kind == "f":
        return array.astype(wanted)
    limits = np.iinfo(wanted)
    return np.clip(np.rint(array), limits.min, limits.max).astype(wanted)
