"""Barlow Twins (Zbontar et al. 2021): the numbers of an embedding agree between views, and with no other number.

"Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.heads import mlp
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class BarlowTwins(Method):
    """The cross-correlation of two views' projections is driven to the identity."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e = embedding_dim(encoder)
        d = settings.projector_dim or 4 * e  # section 2.2: 8192 behind a ResNet-50's 2048
        self.projector = mlp([e, d, d, d], last="plain")

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return batch.augmented(0, self.policy), batch.augmented(1, self.policy)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the projections of the whole batch."""
        h = self.encoder(torch.cat(views))
        z1, z2 = self.projector(h).chunk(2)
        loss = redundancy(self.gather(z1), self.gather(z2), self.settings.off_diagonal)
        return loss, {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """Width of the projector."""
        return {"projector_dim": self.projector[0].out_features}


def redundancy(z1: Tensor, z2: Tensor, off_diagonal: float) -> Tensor:
    """Sum_i (1 - C_ii)^2 + off_diagonal * sum_{i != j} C_ij^2 (equation 1), C the cross-correlation [D, D].

    C_ij = sum_b z1_bi z2_bj / ( sqrt(sum_b z1_bi^2) sqrt(sum_b z2_bj^2) ) of projections [B, D] with mean 0 over the
    batch (equation 2).
    """
    z1, z2 = (precise(z) - precise(z).mean(dim=0) for z in (z1, z2))
    c = F.normalize(z1, dim=0).T @ F.normalize(z2, dim=0)
    diagonal = c.diagonal()
    within = (1 - diagonal).square().sum()
    # What is off the diagonal is taken out, not subtracted: squares of 1 would cost digits.
    d = len(c)
    others = c.flatten()[1:].view(d - 1, d + 1)[:, :-1].square().sum()
    return within + off_diagonal * others


METHOD = BarlowTwins
