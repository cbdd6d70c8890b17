"""Methods with a second network that follows the trained one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings


class MomentumSettings(PretrainSettings):
    """What methods with a second, slowly following network have."""

    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Of the moving average at the first step; it rises to 1 by half a cosine. Without it the paper's, less where there
    are few steps: the average then remembers a twentieth of them."""
    projector_dim: int = Field(default=256, ge=2, le=65_536)
    """Output of the heads."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the heads; without it twice the encoder's own."""


class Byol(MomentumSettings):
    """BYOL: predict what a slowly following network makes of the other view; no negatives (Grill et al. 2020)."""

    method: Literal["byol"] = "byol"
    title: ClassVar[str] = "BYOL"
    module: ClassVar[str] = "fewscans.methods.byol"
    views: ClassVar[int] = 2
