"""What the engine offers a method, and what a method is.

A method says which views it wants, gives a loss for a batch of views, and may do something after a step. Loop,
precision, schedule, checkpoints, devices and gauges belong to the engine.

Legend: B batch, C channels, S axes of space (H W or D H W), E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans import augment
from fewscans.known import Known
from fewscans.methods.batch import Batch
from fewscans.shape import Shape

__all__ = ["Batch", "Method", "precise"]


class Method(nn.Module):
    """An encoder with what it is trained by; all parameters of this module are trained."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    """Augmentation; its dial is `settings.strength`."""
    base_lr: ClassVar[float]
    """Peak learning rate at a batch of 256, for AdamW."""
    weight_decay: ClassVar[float]
    """Default."""
    weight_decay_growth: ClassVar[float] = 1.0
    """Weight decay at the end, as a multiple of that of the first step."""
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """Of AdamW."""
    compares: ClassVar[bool] = False
    """Whether the loss compares scans of a batch with one another (negatives, statistics of embeddings): then it is
    another loss where a batch is cut into micro-batches. Batch norms do not count."""

    part: int = 0
    """Which micro-batch of a step `loss` is called with, from 0; the engine counts."""

    gather: Callable[[Tensor], Tensor] = staticmethod(lambda x: x)
    """Rows of the whole batch, of those [B, ...] that this process has: for losses that compare scans with one
    another. The engine replaces it where several processes share a training."""

    gather_for_norms: Callable[[Tensor], Tensor] = staticmethod(lambda x: x)
    """The same for norms that a method computes itself; replaced where batch norms are those of all processes."""

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings, self.shape = settings, shape
        self.policy = augment.policy(
            settings.strength, self.policy_kind, settings.modality or "any", settings.augment.given
        )

    def know(self, known: Known) -> None:
        """Called once after it is made, before it has an optimizer: for heads whose sizes follow from what is known."""

    def begin(self, n_scans: int, batch_size: int, n_steps: int) -> None:
        """Called once, before a saved state is loaded and before the first step: for sizes that follow from these."""

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """What `loss` is given: augmented scans, masks."""
        raise NotImplementedError

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and gauges: ``embedding`` [., E], detached."""
        raise NotImplementedError

    def after_step(self, step: int, n_steps: int) -> None:
        """Called after each step of the optimizer (a moving average of the weights, say)."""

    def resolved(self) -> dict[str, Any]:
        """Settings that the user left open, as they came out."""
        return {}

    def shown(self, batch: Batch) -> Tensor | None:
        """Views [B, V, C, *S] as the encoder sees them, where they are not the augmentations alone; else None."""
        return None

    def handed_on(self) -> dict[str, nn.Module]:
        """Trained parts beside the encoder that are kept, by name; what starts from this encoder may take them up."""
        return {}

    def pictures(self, batch: Batch) -> dict[str, Tensor] | None:
        """Masked methods: ``original``, ``masked`` and ``reconstructed`` [B, C, *S]; None for others."""
        return None


def precise(x: Tensor) -> Tensor:
    """`x` in single precision or better: what a loss is computed in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
