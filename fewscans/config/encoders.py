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


class Majority(EncoderSettings):
    """No image at all: class frequencies of the labelled scans, so that a constant predictor is seen for what it is."""

    method: Literal["majority"] = "majority"
    backbone: str = "none"
    """Not used."""
    protocols: ClassVar[tuple[str, ...]] = ("prior",)


class Random(EncoderSettings):
    """Frozen and untrained; batch-norm statistics are set from the training fold."""

    method: Literal["random"] = "random"
    protocols: ClassVar[tuple[str, ...]] = ("linear", "knn")


class Scratch(EncoderSettings):
    """Supervised from random weights."""

    method: Literal["scratch"] = "scratch"
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class ScratchLong(EncoderSettings):
    """Supervised from random weights, with the steps of pretraining on top of those of fine-tuning."""

    method: Literal["scratch-long"] = "scratch-long"
    extra_steps: int | None = Field(default=None, ge=1)
    """Steps beyond `finetune.steps`; without it as many as the longest pretraining with this backbone and recipe."""
    protocols: ClassVar[tuple[str, ...]] = ("finetune",)


class Imagenet(EncoderSettings):
    """timm's pretrained weights, from the hub or from a local file."""

    method: Literal["imagenet"] = "imagenet"
    weights: str | None = None
    """Local file (.safetensors, or .pth read with weights_only); without it the hub is asked, once, before any job."""
    source: ClassVar[str] = "weights"


class PretrainSettings(EncoderSettings):
    """What every self-supervised method has. `None` = derived from the data, written out beside the result."""

    source: ClassVar[str] = "pretrain"

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
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Temperature of NT-Xent (section 2.1); 0.5 and below serve small batches."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the projection head."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the head; without it the encoder's own."""


class Mae(PretrainSettings):
    """Masked autoencoder: encode visible patches, reconstruct the masked ones (He et al. 2022). ViT only."""

    method: Literal["mae"] = "mae"
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
    mask_patch: int | None = Field(default=None, ge=2, le=256)
    """Side of a masked patch in pixels; without it the ViT's patch, or the divisor of the size nearest to the network's
    stride and to a sixth of the side."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of mask patches hidden (section 4.1.2)."""


AnyEncoder = Annotated[
    Majority | Random | Scratch | ScratchLong | Imagenet | Simclr | Mae | Simmim,
    Field(discriminator="method"),
]
ENCODERS: dict[str, type[EncoderSettings]] = {
    model.model_fields["method"].default: model
    for model in (Majority, Random, Scratch, ScratchLong, Imagenet, Simclr, Mae, Simmim)
}
BASELINES = tuple(
    name for name, model in ENCODERS.items() if not issubclass(model, PretrainSettings)
)
