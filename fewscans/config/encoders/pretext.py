"""Methods with a task made from the scan itself: which way up, in which order, where, which one."""

from __future__ import annotations

from typing import ClassVar, Literal

from fewscans.config.encoders.base import PretrainSettings


class Rotation(PretrainSettings):
    """Rotation: tell by which right angle a scan was turned (Gidaris et al. 2018; in 3D Taleb et al. 2020)."""

    method: Literal["rotation"] = "rotation"
    title: ClassVar[str] = "rotation"
    module: ClassVar[str] = "fewscans.methods.rotation"
    views: ClassVar[int] = 4  # 10 of a volume
