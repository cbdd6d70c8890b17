"""BYOL (Grill et al. 2020): predict what a slowly following network makes of the other view; no negatives.

"Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", arXiv 2006.07733.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods import momentum
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.heads import mlp
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class BYOL(Method):
    """The online network's prediction from one view matches the target network's projection of the other."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4
    paper_momentum: ClassVar[float] = 0.996
    """Section 3.3, tau_base."""

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e, d = embedding_dim(encoder), settings.projector_dim
        # Section 3.3: 4096 behind a ResNet-50's 2048; projector and predictor have one architecture.
        self.hidden = settings.projector_hidden or 2 * e
        self.projector = mlp([e, self.hidden, d])
        self.predictor = mlp([d, self.hidden, d])
        self.target = momentum.follower(nn.Sequential(encoder, self.projector))
        self.base_momentum: float | None = settings.momentum

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return batch.augmented(0, self.policy), batch.augmented(1, self.policy)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both directions of `regression`."""
        both = torch.cat(views)
        h = self.encoder(both)
        q1, q2 = self.predictor(self.projector(h)).chunk(2)
        with torch.no_grad():
            z1, z2 = self.target(both).chunk(2)
        return regression(q1, z2) + regression(q2, z1), {"embedding": h.detach()}

    def after_step(self, step: int, n_steps: int) -> None:
        """The target follows, ever more slowly (equation 1 and section 3.3)."""
        self.base_momentum = momentum.base_momentum(
            self.settings.momentum, self.paper_momentum, n_steps
        )
        tau = momentum.rising(self.base_momentum, step, n_steps)
        momentum.follow(self.target, nn.Sequential(self.encoder, self.projector), tau)

    def resolved(self) -> dict[str, Any]:
        """Width of the heads, and the first momentum."""
        return {"projector_hidden": self.hidden, "momentum": self.base_momentum}


def regression(q: Tensor, z: Tensor) -> Tensor:
    """Squared distance of normalised prediction q and projection z [B, D], mean over scans (equation 2).

    || q/|q| - z/|z| ||^2 = 2 - 2 <q, z> / (|q| |z|)
    """
    return 2 - 2 * F.cosine_similarity(precise(q), precise(z.detach()), dim=1).mean()


METHOD = BYOL
