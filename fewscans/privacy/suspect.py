"""What a picture may show of who it is: burned-in text and faces, suspected cheaply, for a human to look at.

Flags, not proof: a scan without one may still show a name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewscans.privacy.header import Header, read_header

# Burned-in text stands at the border of a picture: this share of a side.
_BORDER = 0.2
# Strokes are this share of the range brighter than what is around them, within so many pixels.
_CONTRAST, _AROUND = 0.4, 9
# Letters of a line, their least height in pixels, and their greatest as share of the picture. Small ones touch: so many
# heights may one mark be wide, and so many marks must there be.
_LETTERS, _LOWEST, _HIGHEST, _WIDEST, _MARKS = 5, 3, 1 / 8, 3.0, 4
# Of a volume so many planes are looked at, the first and the last among them.
_PLANES = 5
# SOP classes: secondary capture; ultrasound, single and multi-frame, retired too (PS3.4 B.5, PS3.6 annex A).
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ULTRASOUND = (
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.6",
)
_HEAD = re.compile(
    r"head|brain|skull|face|sinus|orbit|cranium|kopf|schaedel|schädel|crane|neuro", re.IGNORECASE
)
_BELOW = re.compile(r"femoral head|head of|humer", re.IGNORECASE)
# A head is about so wide and deep, in mm, with air around it.
_HEAD_MM = (110.0, 260.0)
_SKIN_HU, _AIR_HU = -200.0, -700.0


# Items of the index.
FROM_HEADER = ("modality", "manufacturer", "burned_in", "face")


def from_header(path: Path | None, hidden: bool) -> dict[str, Any]:
    """Items of a row of the index; where names are `hidden`, `date` and `identifiers` beside them."""
    found = read_header(path, hidden) if path is not None else Header()
    items: dict[str, Any] = {
        "modality": found.modality,
        "manufacturer": found.manufacturer,
        "burned_in": says_burned_in(found),
        "face": says_face(found),
    }
    return items | ({"date": found.date, "identifiers": list(found.identifiers)} if hidden else {})


def says_burned_in(header: Header) -> str:
    """Why text is suspected in the pixels by what a file says: the tag, the kind of object; or nothing."""
    sop = header.classes[0] if header.classes else ""
    if header.burned_in == "YES":
        return "its header says so"
    if sop.startswith(_CAPTURE) or "SCREEN SAVE" in header.classes:
        return "a secondary capture"
    if header.modality == "US" or sop in _ULTRASOUND:
        return "an ultrasound object"
    return ""


def says_face(header: Header) -> str:
    """Why a face is suspected by what a file says: CT or MR of the head; or nothing."""
    if (
        header.modality in ("CT", "MR")
        and _HEAD.search(header.body)
        and not _BELOW.search(header.body)
    ):
        return "its header says that it is of the head"
    return ""


def has_text(gray: npt.NDArray[np.float32]) -> bool:
    """Whether [H, W] has a line of bright, thin, separate marks of one height near its border."""
    from scipy import ndimage

    low, high = float(gray.min()), float(np.quantile(gray, 0.999))
    if not low < high:  # a few letters on an empty ground
        high = float(gray.max())
    if not low < high or min(gray.shape) < 4 * _AROUND:
        return False
    scaled = np.clip((gray - low) / (high - low), 0, 1)
    # White top-hat: what is brighter than its surroundings and thinner than they are wide.
    strokes = ndimage.white_tophat(scaled, size=_AROUND) > _CONTRAST
    height, width = gray.shape
    rows, columns = int(_BORDER * height), int(_BORDER * width)
    strokes[rows : height - rows, columns : width - columns] = False
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    boxes = []
    for part in ndimage.find_objects(labels):
        tall, wide = (side.stop - side.start for side in part)
        if _LOWEST <= tall <= max(8, _HIGHEST * height) and wide <= _WIDEST * tall:
            boxes.append((part[0].start, tall, part[1].start, part[1].stop))
    return _longest_line(boxes) >= _LETTERS


def volume_has_text(volume: npt.NDArray[np.float32], spacing_mm: tuple[float, ...]) -> bool:
    """Whether two planes of [D, H, W] in RAS, of a few along the axis of its slices, have such a line (`has_text`).

    Slices lie furthest apart: where axes are equal, or nobody says, each may be theirs. RAS turns a picture over and
    not on its side, so a line of text stays one. A name stands on each slice; in one of so many planes grain may look
    like letters.
    """
    sizes = np.asarray(spacing_mm if len(spacing_mm) == 3 else (1.0,) * 3)
    for axis in np.flatnonzero(sizes >= 0.99 * sizes.max()):
        last = volume.shape[axis] - 1
        spots = sorted({round(last * k / (_PLANES - 1)) for k in range(_PLANES)})
        found = (has_text(volume.take(spot, axis=axis)) for spot in spots)
        if sum(found) >= min(2, len(spots)):
            return True
    return False


def _longest_line(boxes: list[tuple[int, int, int, int]]) -> int:
    """Most letters of one height that stand beside each other on one line, with gaps about as wide as they are high.

    A mark is (top, height, left, right), and as many letters as its width says; two or three marks are no line, since
    tissue has such, side by side.
    """
    best = 0
    boxes = sorted(boxes, key=lambda box: box[2])
    for i, (top, tall, first, right) in enumerate(boxes):
        n, marks = _letters(tall, right - first), 1
        for other_top, other_tall, left, other_right in boxes[i + 1 :]:
            if left - right > 1.5 * tall:
                break
            even = abs(other_top + other_tall - top - tall) <= 1 + tall // 6
            if even and abs(other_tall - tall) <= 1 + tall // 4 and left >= right:
                n, right = n + _letters(other_tall, other_right - left), other_right
                marks += 1
        best = max(best, n if marks >= _MARKS else 0)
    return best


def _letters(tall: int, wide: int) -> int:
    return max(1, round(wide / (0.8 * tall)))


def is_head(volume: npt.NDArray[np.float32], spacing_mm: tuple[float, ...], unit: str) -> bool:
    """Whether [D, H, W] in RAS shows a body with air in front and on both sides that is as wide and deep as a head."""
    step = [max(1, round(3 / size)) for size in spacing_mm]
    small = volume[:: step[0], :: step[1], :: step[2]]
    threshold = _SKIN_HU if unit == "HU" else _otsu(small)
    inside = small > threshold
    if not inside.any():
        return False
    sizes = []
    for axis in (0, 1, 2):
        seen = inside.mean(axis=tuple(other for other in range(3) if other != axis)) > 0.02
        found = np.flatnonzero(seen)
        if not len(found):
            return False
        sizes.append((found[-1] - found[0] + 1) * step[axis] * spacing_mm[axis])
    # Air in front of the face and at both sides; shoulders and bodies touch the edges or are wider.
    edges = [inside[:, -1, :], inside[:, :, 0], inside[:, :, -1]]
    free = all(float(edge.mean()) < 0.05 for edge in edges)
    least, most = _HEAD_MM
    return free and all(least <= size <= most for size in sizes[1:]) and sizes[0] >= 80


def _otsu(values: npt.NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values)) if values.min() < values.max() else float(values.max())
