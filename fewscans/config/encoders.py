"""How encoder weights come to be: baselines that nothing is pretrained for, and self-supervised methods.

A method's settings are one class here; its registry line is in `fewscans.methods.METHODS`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fewscans.config.base import Fraction, Settings


class EncoderSettings(Settings):
    """What every encoder has."""

    backbone: str = "resnet18"
    """timm model name (ResNet, VGG, ViT and others)."""
    patch_size: int | None = Field(default=None, ge=2, le=64)
    """Side of a ViT's patch in pixels; without it about size / 8, at least 4 and at most the model's own, so that
    small images have patches enough. Not used by other networks."""

    # Legal protocols; a product drops the others, a user who names one is told.
    protocols: ClassVar[tuple[str, ...]] = ("linear", "knn", "finetune")
    # Which stage makes the weights: none, weights (hub or file), pretrain.
    source: ClassVar[str] = "none"
    # What tables and figures call it.
    title: ClassVar[str]


class Majority(EncoderSettings):
    """No image at all: class frequencies of the labelled scans, so that a constant predictor is seen for what it is."""

    method: Literal["majority"] = "majority"
    title: ClassVar[str] = "majority"
    backbone: str = "none"
    """Not used."""
    protocols: ClassVar[tuple[str, ...]] = ("prior",)


class Random(EncoderSettings):
    """Frozen and untrained; batch-norm statistics are set from the training fold."""

    method: Literal["random"] = "random"
    title: ClassVar[str] = "random, frozen"
    protocols: ClassVar[tuple[str, ...]] = ("linear", "knn")


class Scratch(EncoderSettings):
    """Supervised from random weights."""

    method: Literal["scratch"] = "scratch"
    title: ClassVar[str] = "scratch"
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class ScratchLong(EncoderSettings):
    """Supervised from random weights, with the steps of pretraining on top of those of fine-tuning."""

    method: Literal["scratch-long"] = "scratch-long"
    title: ClassVar[str] = "scratch, long"
    extra_steps: int | None = Field(default=None, ge=1)
    """Steps beyond `finetune.steps`; without it as many as the longest pretraining with this backbone and recipe."""
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class Imagenet(EncoderSettings):
    """timm's pretrained weights, from the hub or from a local file."""

    method: Literal["imagenet"] = "imagenet"
    title: ClassVar[str] = "ImageNet"
    weights: str | None = None
    """Local file (.safetensors, or .pth read with weights_only); without it the hub is asked, once, before any job."""
    source: ClassVar[str] = "weights"


class PretrainSettings(EncoderSettings):
    """What every self-supervised method has. `None` = derived from the data, written out beside the result."""

    source: ClassVar[str] = "pretrain"
    # Images that a step makes of one scan.
    views: ClassVar[int] = 1

    epochs: int = Field(default=100, ge=1, le=100_000)
    """Passes over the training scans; pretraining always keeps its last epoch."""
    batch_size: int = Field(default=128, ge=2, le=65_536)
    """Scans in a step (views come on top), about: an epoch is cut into equal batches of nearly this size."""
    lr: float | None = Field(default=None, gt=0, le=100)
    """Peak learning rate; without it `base_lr * batch_size / 256` of the method."""
    weight_decay: float | None = Field(default=None, ge=0, le=10)
    """Of weights, not of biases and norms; without it the method's own."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly; then a cosine to zero."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm."""
    strength: float = Field(default=1.0, ge=0, le=2)
    """Dial of the augmentation: 0 = crops and flips alone are left, 1 = the policy as it is."""
    transductive: bool = False
    """Pretrain on the scans of the test fold too (never their labels); said in every table."""
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    """Interval of checkpoints; not part of the result."""
    ranks: int = Field(default=1, ge=1, le=1024)
    """Processes that share a pretraining, one per GPU, on one node or several; the batch is divided among them. Other
    numbers round differently, so it belongs to the result."""

    @field_validator("ranks")
    @classmethod
    def _divides_the_batch(cls, ranks: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size", ranks)
        if batch_size % ranks:
            raise PydanticCustomError(
                "ranks",
                "must divide batch_size {batch_size}, as each process takes an equal part; {near} would do",
                {"batch_size": batch_size, "near": f"batch_size {-(-batch_size // ranks) * ranks}"},
            )
        return ranks


class Simclr(PretrainSettings):
    """SimCLR: two views of a scan attract, all others repel (Chen et al. 2020)."""

    method: Literal["simclr"] = "simclr"
    title: ClassVar[str] = "SimCLR"
    views: ClassVar[int] = 2
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of NT-Xent (section 2.1); 0.5 and below serve small batches."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own."""


class Mae(PretrainSettings):
    """Masked autoencoder: encode visible patches, reconstruct the masked ones (He et al. 2022). ViT only."""

    method: Literal["mae"] = "mae"
    title: ClassVar[str] = "MAE"
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
    mask_patch: int | None = Field(default=None, ge=2, le=256)
    """Side of a masked patch in pixels; without it the ViT's patch, or the divisor of the size nearest to the network's
    stride and to a sixth of the side."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of mask patches hidden (section 4.1.2)."""


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
    views: ClassVar[int] = 2


class MocoV3(MomentumSettings):
    """MoCo v3: find the other view's key, made by a slowly following network, in the batch (Chen, Xie & He 2021)."""

    method: Literal["mocov3"] = "mocov3"
    title: ClassVar[str] = "MoCo v3"
    views: ClassVar[int] = 2
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of InfoNCE (section 4.1)."""


class Simsiam(PretrainSettings):
    """SimSiam: predict the other view's projection, which gets no gradient (Chen & He 2021)."""

    method: Literal["simsiam"] = "simsiam"
    title: ClassVar[str] = "SimSiam"
    views: ClassVar[int] = 2
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the projection head; without it the encoder's own (section 3)."""
    predictor_hidden: int | None = Field(default=None, ge=1, le=65_536)
    """Bottleneck of the predictor; without it a quarter of `projector_dim` (section 3)."""


class Barlow(PretrainSettings):
    """Barlow Twins: the cross-correlation of two views becomes the identity (Zbontar et al. 2021)."""

    method: Literal["barlow"] = "barlow"
    title: ClassVar[str] = "Barlow Twins"
    views: ClassVar[int] = 2
    off_diagonal: float = Field(default=0.005, ge=0, le=10)
    """Weight of what is off the diagonal (section 2.2)."""
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the projection head; without it four times the encoder's own (section 2.2)."""


class Vicreg(PretrainSettings):
    """VICReg: views agree, and the embedding's numbers vary without repeating each other (Bardes et al. 2022)."""

    method: Literal["vicreg"] = "vicreg"
    title: ClassVar[str] = "VICReg"
    views: ClassVar[int] = 2
    invariance: float = Field(default=25.0, ge=0)
    """lambda (section 4.2)."""
    variance: float = Field(default=25.0, ge=0)
    """mu."""
    covariance: float = Field(default=1.0, ge=0)
    """nu."""
    projector_dim: int | None = Field(default=None, ge=2, le=65_536)
    """Width of the expander; without it four times the encoder's own (section 4.2)."""


_MODELS: tuple[type[EncoderSettings], ...] = (
    Majority, Random, Scratch, ScratchLong, Imagenet,
    Simclr, MocoV3, Byol, Simsiam, Barlow, Vicreg, Mae, Simmim,
)  # fmt: skip
AnyEncoder = Annotated[
    Majority | Random | Scratch | ScratchLong | Imagenet
    | Simclr | MocoV3 | Byol | Simsiam | Barlow | Vicreg | Mae | Simmim,
    Field(discriminator="method"),
]  # fmt: skip
ENCODERS: dict[str, type[EncoderSettings]] = {
    model.model_fields["method"].default: model for model in _MODELS
}
BASELINES = tuple(
    name for name, model in ENCODERS.items() if not issubclass(model, PretrainSettings)
)
