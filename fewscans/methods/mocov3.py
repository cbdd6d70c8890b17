"""MoCo v3 (Chen, Xie & He 2021): contrast with what a slowly following network makes of the other view; no queue.

"An Empirical Study of Training Self-Supervised Vision Transformers", arXiv 2104.02057.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods import momentum
from fewscans.methods.base import Batch, Method
from fewscans.methods.contrast import related, two_views, unit
from fewscans.methods.heads import mlp
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class MoCoV3(Method):
    """A query of one view finds the key of the other among the keys of the batch."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True
    paper_momentum: ClassVar[float] = 0.99
    """Section 4.1, m."""

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e, d = embedding_dim(encoder), settings.projector_dim
        self.hidden = (
            settings.projector_hidden or 2 * e
        )  # section 3: 4096 behind a ResNet-50's 2048
        # Section 3: a prediction head on the query's side; norms end both, without scale and shift on the key's.
        self.projector = mlp([e, self.hidden, d], last="fixed-norm")
        self.predictor = mlp([d, self.hidden, d], last="fixed-norm")
        self.target = momentum.follower(nn.Sequential(encoder, self.projector))
        self.base_momentum: float | None = settings.momentum

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return two_views(batch, self.policy, self.settings)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ctr(q1, k2) + ctr(q2, k1) (algorithm 1), over the whole batch."""
        x1, x2, *patient = views
        both = torch.cat([x1, x2])
        h = self.encoder(both)
        q1, q2 = (self.gather(q) for q in self.predictor(self.projector(h)).chunk(2))
        with torch.no_grad():
            k1, k2 = (self.gather(k) for k in self.target(both).chunk(2))
        t = self.settings.temperature
        spared = related(self.gather(*patient)) if patient else None
        loss = contrast(q1, k2, t, spared) + contrast(q2, k1, t, spared)
        return loss, {"embedding": h.detach()}

    def after_step(self, step: int, n_steps: int) -> None:
        """The keys' network follows, ever more slowly (section 4.1)."""
        self.base_momentum = momentum.base_momentum(
            self.settings.momentum, self.paper_momentum, n_steps
        )
        m = momentum.rising(self.base_momentum, step, n_steps)
        momentum.follow(self.target, nn.Sequential(self.encoder, self.projector), m)

    def resolved(self) -> dict[str, Any]:
        """Width of the heads, and the first momentum."""
        return {"projector_hidden": self.hidden, "momentum": self.base_momentum}


def contrast(q: Tensor, k: Tensor, temperature: float, spared: Tensor | None = None) -> Tensor:
    """2 t times the InfoNCE loss of queries and keys [B, D], mean over queries (equation 1 and algorithm 1).

    -log( exp(q_i k_i / t) / sum_j exp(q_i k_j / t) ), rows normalised; no gradient to the keys. Pairs `spared`, bool
    [B, B], are no negatives.
    """
    similarity = unit(q) @ unit(k.detach()).T / temperature
    if spared is not None:
        similarity = similarity.masked_fill(spared.clone().fill_diagonal_(False), float("-inf"))
    own = torch.arange(len(q), device=q.device)
    return 2 * temperature * F.cross_entropy(similarity, own)


METHOD = MoCoV3
