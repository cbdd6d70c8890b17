"""VICReg (Bardes et al. 2022): views agree, numbers of an embedding vary, and say different things.

"VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", arXiv 2105.04906.
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


class VICReg(Method):
    """Invariance between two views; variance and covariance within each keep the embedding from collapsing."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e = embedding_dim(encoder)
        d = settings.projector_dim or 4 * e  # section 4.2: an expander of 8192 behind 2048
        self.projector = mlp([e, d, d, d], last="plain")

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return batch.augmented(0, self.policy), batch.augmented(1, self.policy)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of invariance, variance and covariance (equation 6)."""
        h = self.encoder(torch.cat(views))
        z1, z2 = (self.gather(z) for z in self.projector(h).chunk(2))
        z1, z2 = precise(z1), precise(z2)
        s = self.settings
        loss = (
            s.invariance * F.mse_loss(z1, z2)
            + s.variance * (variance(z1) + variance(z2))
            + s.covariance * (covariance(z1) + covariance(z2))
        )
        return loss, {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """Width of the expander."""
        return {"projector_dim": self.projector[0].out_features}


def variance(z: Tensor, gamma: float = 1.0, epsilon: float = 1e-4) -> Tensor:
    """v(Z) = 1/D sum_j max(0, gamma - sqrt(Var(z_j) + epsilon)) of Z [B, D], B >= 2 (equations 1 and 2)."""
    return F.relu(gamma - (z.var(dim=0) + epsilon).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """c(Z) = 1/D sum_{i != j} C(Z)_ij^2, C the covariance of Z [B, D], B >= 2 (equations 3 and 4)."""
    b, d = z.shape
    z = z - z.mean(dim=0)
    c = z.T @ z / (b - 1)
    return c.flatten()[1:].view(d - 1, d + 1)[:, :-1].square().sum() / d


METHOD = VICReg
