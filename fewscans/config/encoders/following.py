"""Methods with a second network that follows the trained one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fewscans.config.base import Fraction
from fewscans.config.encoders.base import PretrainSettings

Temperature = Annotated[float, Field(gt=0, le=10)]


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


class Dino(MomentumSettings):
    """DINO: small crops find the prototypes that a slowly following network has for large ones (Caron et al. 2021)."""

    method: Literal["dino"] = "dino"
    title: ClassVar[str] = "DINO"
    module: ClassVar[str] = "fewscans.methods.dino"
    views: ClassVar[int] = 2
    local_crops: int = Field(default=6, ge=0, le=32)
    """Small crops besides the two large ones (multi-crop; the paper has up to 10)."""
    local_side: float = Field(default=0.5, gt=0, le=1)
    """Side of small crops as a share of the image's; whole patches of a ViT."""
    local_area: tuple[Fraction, Fraction] = (0.05, 0.4)
    """Area of small crops as a share of the image; large ones have the second number up to all of it (section 3.1)."""
    temperature: float = Field(default=0.1, gt=0, le=10)
    """Of the student (section 3.1)."""
    teacher_temperature: tuple[Temperature, Temperature] = (0.02, 0.04)
    """Of the teacher: at first, and after three tenths of the steps (the paper: 0.04 to 0.07). Sharper, since teachers
    of few steps say almost the same of all scans."""
    projector_dim: int = Field(default=32, ge=2, le=65_536)
    """Width before the prototypes (the paper: 256). Random vectors of fewer dimensions differ more, so that prototypes
    tell scans apart from the first steps on."""
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of the centre of the teacher's outputs (appendix D)."""
    prototypes: int | None = Field(default=None, ge=2, le=1_000_000)
    """Output of the head; without it four for each scan of a batch, as the paper's 65,536 are far more than small data
    sets have scans."""

    def images(self, ndim: int) -> float:
        """Small crops count by their area (volume)."""
        return self.views + self.local_crops * self.local_side**ndim
