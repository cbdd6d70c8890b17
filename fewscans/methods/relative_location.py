"""Relative location (Doersch et al. 2015): tell on which side of the middle patch another one lies.

"Unsupervised Visual Representation Learning by Context Prediction", arXiv 1505.05192; all pairs of a scan share its
encoded patches (Kolesnikov et al. 2019, arXiv 1901.09005, section 3.2). Volumes: 26 places around the middle one
(Taleb et al. 2020, arXiv 2006.03829, section 3.2).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.heads import mlp
from fewscans.methods.patches import make_cells
from fewscans.networks import embedding_dim
from fewscans.networks.resized import forward_at
from fewscans.shape import Shape


class RelativeLocation(Method):
    """One encoder for all patches; a head sees the embeddings of a patch and of the middle one."""

    policy_kind: ClassVar[augment.Kind] = "placed"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.cells = make_cells(encoder, shape, 3, "relative-location")
        self.head = mlp([2 * embedding_dim(encoder), settings.head_hidden, self.cells.n - 1])

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Patches [B, N, C, *s]."""
        u = batch.random(self.cells.n * self.cells.ndim)
        return (self.cells.cut(batch.augmented(0, self.policy), u),)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy over all places around the middle of all scans."""
        (patches,) = views
        h = forward_at(self.encoder, patches.flatten(0, 1))
        pairs = paired(h.unflatten(0, patches.shape[:2]))
        places = torch.arange(pairs.shape[1], device=h.device).repeat(len(pairs))
        logits = precise(self.head(pairs.flatten(0, 1)))
        return F.cross_entropy(logits, places), {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """The grid in numbers."""
        return {
            "n_places": self.cells.n - 1,
            "cell": self.cells.cell,
            "patch_side": self.cells.side,
        }

    def shown(self, batch: Batch) -> Tensor:
        """All patches at their places, as two epochs have them."""
        later = Batch(batch.x, batch.keys, batch.epoch + 1, batch.seed_key)
        made = [self.cells.laid_out(self.views(one)[0], self.shape.size) for one in (batch, later)]
        return torch.stack(made, dim=1)


def paired(h: Tensor) -> Tensor:
    """[B, N - 1, 2 E] of embeddings h [B, N, E]: each but the middle one, followed by the middle one."""
    middle = h.shape[1] // 2
    others = torch.cat([h[:, :middle], h[:, middle + 1 :]], dim=1)
    return torch.cat([others, h[:, middle, None].expand_as(others)], dim=2)


METHOD = RelativeLocation
