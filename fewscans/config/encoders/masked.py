"""Methods that fill in what was hidden."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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


class Spark(PretrainSettings):
    """SparK: masked modelling for convolutional networks, which see visible squares alone (Tian et al. 2023)."""

    method: Literal["spark"] = "spark"
    title: ClassVar[str] = "SparK"
    networks: ClassVar[Literal["any", "vit", "convolutional"]] = "convolutional"
    module: ClassVar[str] = "fewscans.methods.spark"
    mask_patch: int | None = Field(default=None, ge=2, le=256)
    """Side of a hidden square in pixels; without it the divisor of the size nearest to the network's stride and to a
    sixth of the side."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of squares hidden (section 4.1)."""
    decoder_dim: int | None = Field(default=None, ge=8, le=4096)
    """Width of the decoder at the coarsest map; without it half of the encoder's, at least 32 (the paper: 768 for a
    ResNet-50). Each finer one has half of it."""


Rate = Annotated[float, Field(ge=0, le=1)]


class Genesis(PretrainSettings):
    """Models Genesis: restore a scan that was bent, shuffled and painted over (Zhou et al. 2020); keeps its decoder."""

    method: Literal["genesis"] = "genesis"
    title: ClassVar[str] = "Models Genesis"
    networks: ClassVar[Literal["any", "vit", "convolutional"]] = "convolutional"
    module: ClassVar[str] = "fewscans.methods.genesis"
    backbone: str = "monai-unet"
    """`monai-unet` has a decoder of its own, which is trained with it; other networks with maps get a light one."""
    nonlinear_rate: Rate = 0.9
    """Share of scans whose intensities go through a monotone curve; 0 leaves it out, as with the others."""
    shuffle_rate: Rate = 0.5
    """Share of scans with pixels in wrong places within small windows."""
    paint_rate: Rate = 0.9
    """Share of scans with parts painted over by noise."""
    inpaint_share: Rate = 0.2
    """Share of those that are painted over inside (in-painting), the others outside (out-painting)."""
    decoder_dim: int | None = Field(default=None, ge=8, le=4096)
    """Width of a light decoder at the coarsest map; without it half of the encoder's, at least 32."""
