"""Methods that fill in what was hidden."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings


class Mae(PretrainSettings):
    """Masked autoencoder: encode visible patches, reconstruct the masked ones (He et al. 2022). ViT only."""

    method: Literal["mae"] = "mae"
    title: ClassVar[str] = "MAE"
    networks: ClassVar[Literal["any", "vit", "convolutional"]] = "vit"
    maps: ClassVar[bool] = True
    module: ClassVar[str] = "fewscans.methods.mae"
    backbone: str = "vit_tiny_patch16_224"
    """timm name of a plain ViT."""
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden (section 4.1, 75 %)."""
    decoder_dim: int | None = Field(default=None, ge=8, le=4096)
    """Width of the decoder; without it half of the encoder's, at least 32."""
    decoder_depth: int = Field(default=2, ge=1, le=24)
    """Blocks of the decoder; light on few images (the paper has 8)."""
    normalise_target: bool = True
    """Reconstruct patches normalised by their own mean and variance (section 3)."""


class Simmim(PretrainSettings):
    """SimMIM: mask patches at the input, predict raw pixels from the last features, L1 (Xie et al. 2022)."""

    method: Literal["simmim"] = "simmim"
    title: ClassVar[str] = "SimMIM"
    maps: ClassVar[bool] = True
    module: ClassVar[str] = "fewscans.methods.simmim"
    mask_patch: int | None = Field(default=None, ge=2, le=256)
    """Side of a masked patch in pixels; without it the ViT's patch, or the divisor of the size nearest to the network's
    stride and to a sixth of the side."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of mask patches hidden (section 4.1.2)."""
