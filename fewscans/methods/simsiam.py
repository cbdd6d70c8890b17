"""SimSiam (Chen & He 2021): two views, one network, a predictor and a stop of gradients; nothing else.

"Exploring Simple Siamese Representation Learning", arXiv 2011.10566.
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


class SimSiam(Method):
    """The prediction from one view matches the projection of the other, which gets no gradient."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e = embedding_dim(encoder)
        # Section 3: d = 2048 behind a ResNet-50's 2048, and a bottleneck of 512 in the predictor.
        d = settings.projector_dim or e
        self.projector = mlp([e, d, d, d], last="fixed-norm")
        self.predictor = mlp([d, settings.predictor_hidden or max(1, d // 4), d])

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return batch.augmented(0, self.policy), batch.augmented(1, self.policy)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2 (equation 4)."""
        h = self.encoder(torch.cat(views))
        z = self.projector(h)
        (z1, z2), (p1, p2) = z.chunk(2), self.predictor(z).chunk(2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return loss, {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """Widths of the heads."""
        hidden, d = self.predictor[0].out_features, self.predictor[0].in_features
        return {"projector_dim": d, "predictor_hidden": hidden}


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = - <p, z> / (|p| |z|) of rows [B, D], mean over scans; no gradient to z (equations 1 and 3)."""
    return -F.cosine_similarity(precise(p), precise(z.detach()), dim=1).mean()


METHOD = SimSiam
