"""Which slices of its volumes a data set is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewscans.config.base import Settings


class SliceSettings(Settings):
    """Volumes as images: which of their slices are scans. Without any setting: all axial ones."""

    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    """Plane of the slices. In an .npz, whose orientation nobody knows, slices along the first, second or third axis."""
    crossing_mask: bool = False
    """Only those in which the scan's mask (`columns.mask`) has a label."""
    every: int = Field(default=1, ge=1, le=1000)
    """Of those every n-th, from the middle of the first n on."""
    central: int | None = Field(default=None, ge=1, le=10_000)
    """Of those so many in the middle."""
