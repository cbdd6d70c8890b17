"""Small gray pictures of scans, which near duplicates share; and whether a scan is blank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.audit.looks import MEASURES, measure
from fewscans.privacy.suspect import has_text, is_head, volume_has_text

SIDE = 32
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as PIL turns RGB to gray
TAIL = 200  # one pixel in so many at either end may differ, and still nothing can be seen


@dataclass(frozen=True)
class Thumbnails:
    """Of n scans, in the order of their table.

    Attributes
    ----------
    pictures
        [n, 32, 32] float32, mean gray of each box in physical units; 0 where a scan could not be
        read. Of a volume 16 thick slices of 8 x 8 boxes, side by side.
    constant
        [n] bool: one value everywhere. Such a scan has no correlation with any other.
    blank
        [n] bool: some 99 % of its pixels have one value; true of the constant ones too.
    looks
        A row per scan of numbers about it (`fewscans.audit.looks.measure`); NaN where it could not be read.
    """

    pictures: npt.NDArray[np.float32]
    constant: npt.NDArray[np.bool_]
    blank: npt.NDArray[np.bool_]
    looks: pd.DataFrame


def _suspect(gray: npt.NDArray[np.float32], row: pd.Series) -> tuple[bool, bool]:
    """Whether a scan looks as if it had text in it; as if it showed a head."""
    spacing = tuple(row["spacing_mm"])
    if gray.ndim == 2:
        return has_text(gray), False
    may = row.get("modality", "") in ("CT", "MR", "") and len(spacing) == 3
    return volume_has_text(gray, spacing), may and is_head(gray, spacing, row["unit"])


def make_thumbnails(
    index: pd.DataFrame, read_pixels: Callable[[pd.Series], np.ndarray]
) -> Thumbnails:
    """Thumbnails of the scans of `index`; `read_pixels(row)` gives [C, (D,) H, W] float32."""
    n = len(index)
    pictures = np.zeros((n, SIDE, SIDE), dtype=np.float32)
    constant, blank = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    text, head = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    found = np.full((n, len(MEASURES)), np.nan)
    for i, (_, row) in enumerate(index.iterrows()):
        if row["status"] != "ok":
            continue
        gray = to_gray(np.asarray(read_pixels(row)))
        pictures[i] = thumbnail(gray)
        constant[i] = gray.min() == gray.max()
        blank[i] = constant[i] or is_blank(gray)
        found[i] = list(measure(gray).values())
        text[i], head[i] = _suspect(gray, row)
    looks = pd.DataFrame(found, index=index.index, columns=list(MEASURES))
    looks = looks.assign(text=text, head=head)
    return Thumbnails(pictures, constant, blank, looks)


def to_gray(pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """[(D,) H, W] float32 from [C, (D,) H, W]: luma of three channels, the mean of any other number."""
    pixels = pixels.astype(np.float32, copy=False)
    if pixels.shape[0] == 1:
        return pixels[0]
    return np.tensordot(LUMA, pixels, axes=1) if pixels.shape[0] == 3 else pixels.mean(axis=0)


def thumbnail(gray: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[32, 32] means over equal boxes of [(D,) H, W]; a pixel on a border counts in part in either."""
    if gray.ndim == 2:
        height, width = gray.shape
        return (_boxes(height) @ gray @ _boxes(width).T).astype(np.float32)
    for axis, boxes in enumerate((SIDE // 2, SIDE // 4, SIDE // 4)):
        weights = _boxes(gray.shape[axis], boxes)
        gray = np.moveaxis(np.tensordot(weights, gray, axes=(1, axis)), 0, axis)
    rows = gray.reshape(4, 4, SIDE // 4, SIDE // 4).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(SIDE, SIDE), dtype=np.float32)


@lru_cache(maxsize=512)
def _boxes(length: int, boxes: int = SIDE) -> npt.NDArray[np.float32]:
    """[boxes, length] weights that average `length` pixels into equal boxes."""
    edges = np.linspace(0, length, boxes + 1)
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = overlap.clip(min=0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def is_blank(gray: npt.NDArray[np.float32]) -> bool:
    """Whether all but the darkest and the brightest half percent of the pixels have one value."""
    flat = gray.ravel()
    tail = flat.size // TAIL
    ranked = np.partition(flat, (tail, flat.size - 1 - tail))
    return bool(ranked[tail] == ranked[flat.size - 1 - tail])


def unit_vectors(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[n, 1024] of mean 0 and length 1: dot products are Pearson correlations. 0 where constant."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # Rounding leaves a constant picture of large values with a tiny spread; that is no picture.
    scale = np.abs(pictures.reshape(len(pictures), -1)).max(axis=1, keepdims=True, initial=0)
    seen = length > 1e-5 * np.maximum(scale, 1e-30)
    return np.where(seen, flat / np.where(seen, length, 1), 0).astype(np.float32)
