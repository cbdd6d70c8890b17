"""What all encoders have in their settings, and what all that are pretrained have besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fewscans.config.augment import AugmentSettings, Modality
from fewscans.config.base import Fraction, Settings


class EncoderSettings(Settings):
    """What every encoder has."""

    if TYPE_CHECKING:
        method: str  # each class has its own, as a Literal

    backbone: str = "resnet18"
    """timm model name (ResNet, VGG, ViT and others), or one of MONAI's (`monai-resnet18` and others, also for volumes).
    For volumes also `slices-NAME`, a timm network on at most 32 slices along the first axis, at even distances, whose
    features are averaged; and `inflated-NAME`, a ResNet of timm with kernels repeated along depth."""
    patch_size: int | None = Field(default=None, ge=2, le=64)
    """Side of a ViT's patch in pixels; without it about size / 8, at least 4 and at most the model's own, so that
    small images have patches enough. Not used by other networks."""

    # Legal protocols; a product drops the others, a user who names one is told.
    protocols: ClassVar[tuple[str, ...]] = ("linear", "knn", "finetune")
    # Which networks it can train: any, plain vision transformers, or those that have feature maps of several sizes.
    networks: ClassVar[Literal["any", "vit", "convolutional"]] = "any"
    # Whether it learns from places of the last features, and not from embeddings alone.
    maps: ClassVar[bool] = False
    # Which stage makes the weights: none, weights (hub or file), pretrain.
    source: ClassVar[str] = "none"
    # Which module trains it, by its class ``METHOD`` (a `fewscans.methods.base.Method`); imported when it is asked for.
    module: ClassVar[str] = ""
    # What tables and figures call it.
    title: ClassVar[str]

    @classmethod
    def name(cls) -> str:
        """What a config calls the method."""
        return str(cls.model_fields["method"].default)

    def wants(self) -> tuple[str, ...]:
        """What the method has to know of scans beside their pixels: of ``patient``, ``target``, ``values``."""
        return ()


class PretrainSettings(EncoderSettings):
    """What every self-supervised method has. `None` = derived from the data, written out beside the result."""

    source: ClassVar[str] = "pretrain"
    # Images that a step makes of one scan.
    views: ClassVar[int] = 1

    start: str | None = None
    """Where its weights start: without it at random; the name of another encoder of the config, which is made first;
    `imagenet`; or a file (.safetensors, .pth) or the folder of an earlier encoder, written with a `/`. So stages chain:
    ImageNet, a pool, own scans. What any of them has seen counts as seen."""
    scans: Literal["all", "own", "pools"] = "all"
    """Whose scans it is pretrained on: the training fold's and those of all pools, or one of both."""
    stage: bool = False
    """Only the start of others: no arm of its own."""
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    """Passes over the training scans; pretraining always keeps its last epoch. Without `epochs` and `steps` 100, and
    more where these are less than 1,000 steps, as where scans are few."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all, in place of `epochs`."""
    batch_size: int = Field(default=128, ge=2, le=65_536)
    """Scans in a step (views come on top), about: an epoch is cut into equal batches of nearly this size."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Micro-batches that a batch is cut into: memory for one of them, gradients of the whole. Batch norms, and methods
    that compare scans with one another (flagged `compared-in-parts`), see the scans of a micro-batch alone. Where the
    device runs out of memory it is doubled until the batch fits, flagged `oom-halved`."""
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """`lars` is SGD whose steps are a share of each layer's weights: for batches of thousands."""
    sgd_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd` and `lars`."""
    lr: float | None = Field(default=None, gt=0, le=100)
    """Peak learning rate; without it `base_lr * batch_size / 256` of the method for `adamw`, 0.2 * batch_size / 256 for
    `sgd`, 0.075 * sqrt(batch_size) for `lars`."""
    weight_decay: float | None = Field(default=None, ge=0, le=10)
    """Of weights, not of biases and norms; without it the method's own for `adamw`, 1e-4 for `sgd`, 1e-6 for `lars`."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly; then a cosine to zero."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm."""
    on_collapse: Literal["stop", "keep"] = "stop"
    """What to do where all scans have come to one embedding, twice: end with a message, or go on, flagged
    `collapsed`."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an average of the weights after each step (0.999 remembers 1,000 of them, fewer in the beginning); the
    encoder that is kept is then the average. Without it, the last weights."""
    strength: float = Field(default=1.0, ge=0, le=2)
    """Dial of the augmentation: 0 = crops and flips alone are left, 1 = the policy as it is."""
    modality: Modality | None = None
    """What the scans are, of which the augmentation takes account: `photograph` may stand on its head, `xray` has no
    mirror image, `ct` other windows, `mr` and `ultrasound` uneven gain. Without it the data set's."""
    augment: AugmentSettings = AugmentSettings()
    """Ranges in place of the policy's."""
    transductive: bool = False
    """Pretrain on the scans of the test fold too (never their labels); said in every table."""
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    """Interval of checkpoints; not part of the result."""
    ranks: int = Field(default=1, ge=1, le=1024)
    """Processes that share a pretraining, one per GPU, on one node or several; the batch is divided among them. Other
    numbers round differently, so it belongs to the result."""

    sync_batchnorm: bool = True
    """Whether batch norms take their statistics from the scans of all `ranks`, as one process would; else each from its
    own, which saves an exchange for each norm, and the first rank's running statistics are kept."""

    def images(self, ndim: int) -> float:
        """Images of full size that a step makes of one scan of `ndim` axes: what memory follows from."""
        return self.views

    @property
    def starts_from_file(self) -> bool:
        """Whether `start` is a path."""
        return self.start is not None and "/" in self.start

    @field_validator("steps")
    @classmethod
    def _one_length(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("epochs") is not None:
            raise PydanticCustomError("length", "stands beside `epochs`; say one of them")
        return steps

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
