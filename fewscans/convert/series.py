"""Which planes make which volume: by series, geometry and kind, then by what tells repetitions apart.

- Kinds of image (magnitude, field map) are split where they share places.
- A file or concatenation with several places is a volume of its own (enhanced objects, mosaics); planes that come one
  by one are put together over all files.
- Where places come several times (4D), the first header element, or pair of elements, splits them that leaves no place
  twice; what is left over (an examination that was broken off) is set aside.
- Volumes are sorted by series number, series, kind and what tells them apart: no name of a file is looked at, so that
  renamed copies give the same volumes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fewscans.convert.frames import TOLD, Frame, normal_of
from fewscans.convert.stack import find_places

# A series in several orientations with fewer slices in each is a localiser.
_FEWEST_SLICES = 8
# Of direction cosines and of spacing: less is rounding.
_COSINE, _SPACING = 2e-3, 1e-3


@dataclass(frozen=True)
class Volume:
    """Planes that belong together, doubles with them; a `problem` says why they make no volume."""

    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    problem: str = ""


def find_volumes(frames: Iterable[Frame]) -> list[Volume]:
    """All volumes of some files, in an order that no name decides."""
    volumes: list[Volume] = []
    for series in _grouped(frames, lambda frame: frame.series[1]):
        groups = [group for kind in _grouped(series, _kind) for group in _by_geometry(kind)]
        if localiser := _localiser(groups):
            volumes += [Volume((frame,), problem=localiser) for frame in series]
            continue
        for part in (part for group in groups for part in _by_image_type(group)):
            volumes += _volumes_of(part)
    return sorted(volumes, key=_order)


def _grouped(frames: Iterable[Frame], key: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    found: defaultdict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        found[key(frame)].append(frame)
    return list(found.values())


def _kind(frame: Frame) -> Hashable:
    return frame.kind, frame.n_rows, frame.n_columns


def _by_geometry(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Groups of one orientation and spacing, up to rounding."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            one = group[0]
            turned = np.abs(np.subtract((*frame.row, *frame.column), (*one.row, *one.column)))
            wider = np.abs(np.subtract(frame.spacing_mm, one.spacing_mm))
            if turned.max() < _COSINE and (wider < _SPACING * np.array(one.spacing_mm)).all():
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _by_image_type(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Kinds of image apart (magnitude and phase, water and fat), where two of them share a place.

    Else they are one volume in parts: CT scanners write another type for slices that they add up.
    """
    kinds = _grouped(frames, lambda frame: frame.image_type)
    shared = any(len({frame.image_type for frame in place}) > 1 for place in find_places(frames))
    return kinds if shared else [list(frames)]


def _localiser(groups: Sequence[Sequence[Frame]]) -> str:
    """Why a series is a localiser; "" where it is none."""
    normals: list[np.ndarray] = []
    for group in groups:
        normal = normal_of(group[0])
        if all(abs(normal @ other) < 0.95 for other in normals):
            normals.append(normal)
    if len(normals) < 2 or max(len(find_places(group)) for group in groups) >= _FEWEST_SLICES:
        return ""
    return f"a localiser: few slices in {len(normals)} orientations"


def _volumes_of(group: Sequence[Frame]) -> list[Volume]:
    whole, loose = [], []
    for unit in _grouped(group, lambda frame: frame.unit):
        if len(find_places(unit)) > 1:
            whole.append(unit)
        else:
            loose += unit
    return [volume for part in [*whole, loose] if part for volume in _split(part)]


def _split(frames: Sequence[Frame]) -> list[Volume]:
    """The repetitions of a stack; one where no place comes twice, or nothing tells them apart."""
    unique = list({(f.instance, f.number, f.tile): f for f in frames}.values())
    place_of = {
        (f.instance, f.number, f.tile): n
        for n, place in enumerate(find_places(unique))
        for f in place
    }
    n_places = len(set(place_of.values()))
    if len(unique) == n_places:
        return [Volume(tuple(frames))]
    names = [n for n in range(len(TOLD)) if len({f.told[n] for f in unique}) > 1]
    for chosen in [*combinations(names, 1), *combinations(names, 2)]:
        parts: defaultdict[tuple[str, ...], list[Frame]] = defaultdict(list)
        for frame in unique:
            parts[tuple(frame.told[n] for n in chosen)].append(frame)
        filled = [
            len({place_of[f.instance, f.number, f.tile] for f in part}) for part in parts.values()
        ]
        once = all(n == len(part) for n, part in zip(filled, parts.values(), strict=True))
        if once and max(filled) == n_places:
            return _named(frames, chosen, n_places)
    return [Volume(tuple(frames))]


def _named(frames: Sequence[Frame], chosen: tuple[int, ...], n_places: int) -> list[Volume]:
    parts: defaultdict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        parts[tuple(frame.told[n] for n in chosen)].append(frame)
    names = " and ".join(TOLD[n] for n in chosen)
    made = []
    for number, (_, part) in enumerate(
        sorted(parts.items(), key=lambda item: _sortable(item[0])), start=1
    ):
        n = len(find_places(part))
        note = f"repetition {number} of {len(parts)}, by {names}"
        problem = "" if n == n_places else f"{note}, with {n} of {n_places} slices"
        made.append(Volume(tuple(part), (note,), problem))
    return made


def _sortable(words: Iterable[str]) -> tuple[tuple[float, str], ...]:
    """Numbers as numbers, before everything else."""

    def one(word: str) -> tuple[float, str]:
        try:
            return float(word), word
        except ValueError:
            return np.inf, word

    return tuple(map(one, words))


def _order(volume: Volume) -> tuple[object, ...]:
    first = min(volume.frames, key=lambda f: (_sortable(f.told), f.position, f.instance))
    # The instance last: equal volumes need an order too.
    return (
        *first.series,
        first.image_type,
        tuple(round(x, 2) for x in (*first.row, *first.column)),
        _sortable(first.told),
        first.position,
        min(frame.instance for frame in volume.frames),
    )
