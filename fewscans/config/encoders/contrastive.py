"""Methods that tell scans apart."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings
from fewscans.config.encoders.following import MomentumSettings


class Simclr(PretrainSettings):
    """SimCLR: two views of a scan attract, all others repel (Chen et al. 2020)."""

    method: Literal["simclr"] = "simclr"
    title: ClassVar[str] = "SimCLR"
    module: ClassVar[str] = "fewscans.methods.simclr"
    views: ClassVar[int] = 2
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of NT-Xent (section 2.1); 0.5 and below serve small batches."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own."""


class MocoV3(MomentumSettings):
    """MoCo v3: find the other view's key, made by a slowly following network, in the batch (Chen, Xie & He 2021)."""

    method: Literal["mocov3"] = "mocov3"
    title: ClassVar[str] = "MoCo v3"
    module: ClassVar[str] = "fewscans.methods.mocov3"
    views: ClassVar[int] = 2
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of InfoNCE (section 4.1)."""
