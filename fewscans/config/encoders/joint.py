"""Methods in which two views agree, without negatives and without a second network."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings


class Simsiam(PretrainSettings):
    """SimSiam: predict the other view's projection, which gets no gradient (Chen & He 2021)."""

    method: Literal["simsiam"] = "simsiam"
    title: ClassVar[str] = "SimSiam"
    module: ClassVar[str] = "fewscans.methods.simsiam"
    views: ClassVar[int] = 2
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the projection head; without it the encoder's own (section 3)."""
    predictor_hidden: int | None = Field(default=None, ge=1, le=65_536)
    """Bottleneck of the predictor; without it a quarter of `projector_dim` (section 3)."""


class Barlow(PretrainSettings):
    """Barlow Twins: the cross-correlation of two views becomes the identity (Zbontar et al. 2021)."""

    method: Literal["barlow"] = "barlow"
    title: ClassVar[str] = "Barlow Twins"
    module: ClassVar[str] = "fewscans.methods.barlow"
    views: ClassVar[int] = 2
    off_diagonal: float = Field(default=0.005, ge=0, le=10)
    """Weight of what is off the diagonal (section 2.2)."""
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the projection head; without it four times the encoder's own (section 2.2)."""


class Vicreg(PretrainSettings):
    """VICReg: views agree, and the embedding's numbers vary without repeating each other (Bardes et al. 2022)."""

    method: Literal["vicreg"] = "vicreg"
    title: ClassVar[str] = "VICReg"
    module: ClassVar[str] = "fewscans.methods.vicreg"
    views: ClassVar[int] = 2
    invariance: float = Field(default=25.0, ge=0)
    """lambda (section 4.2)."""
    variance: float = Field(default=25.0, ge=0)
    """mu."""
    covariance: float = Field(default=1.0, ge=0)
    """nu."""
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the expander; without it four times the encoder's own (section 4.2)."""
