"""Exemplar: a scan's views are nearer to each other than to any other scan's.

Dosovitskiy et al. 2014, "Discriminative Unsupervised Feature Learning with Exemplar Convolutional Neural Networks",
arXiv 1406.6909, has a class for each image; with triplets in their place it does without a weight for each (Kolesnikov
et al. 2019, arXiv 1901.09005, section 3.2; in 3D Taleb et al. 2020, arXiv 2006.03829, section 3.5).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods.base import Batch, Method
from fewscans.methods.contrast import unit
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class Exemplar(Method):
    """Several views of each scan; triplets of an anchor, another view of its scan, and a view of another one."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e = embedding_dim(encoder)
        # Standardised first: embeddings of a new network have a large common part that hides all differences.
        self.projector = nn.Sequential(
            nn.BatchNorm1d(e, affine=False), nn.Linear(e, settings.projector_dim, bias=False)
        )

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Each view [B, C, *S]."""
        return tuple(batch.augmented(i, self.policy) for i in range(self.settings.copies))

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Semi-hard triplet loss over all pairs of views of one scan."""
        h = self.encoder(torch.cat(views))
        z = torch.stack([self.gather(part) for part in self.projector(h).chunk(len(views))])
        return semi_hard_triplets(z, self.settings.margin), {"embedding": h.detach()}


def semi_hard_triplets(z: Tensor, margin: float) -> Tensor:
    """Mean over all pairs (a, p) of views of one scan of max(0, D(a, p) - D(a, n) + margin).

    D is the squared distance of vectors of length 1. n is the nearest view of another scan that is farther than p;
    where there is none, the farthest (Schroff et al. 2015, FaceNet, arXiv 1503.03832, section 3.2, equation 4).

    Parameters
    ----------
    z
        Projections [V, B, D] of V views of B scans, B >= 2.
    """
    v, b = z.shape[:2]
    z = unit(z.flatten(0, 1))
    distance = (2 - 2 * z @ z.T).clamp(min=0)
    scan = torch.arange(b, device=z.device).repeat(v)
    same = scan[:, None] == scan[None, :]
    # D(a, n) for each pair (a, p): [V B, V, V B] of the V views of the anchor's scan.
    partners = torch.nonzero(same)[:, 1].view(v * b, v)
    to_partner = distance.gather(1, partners)
    to_other = distance.masked_fill(same, float("inf"))[:, None].expand(-1, v, -1)
    farther = to_other.masked_fill(to_other <= to_partner[..., None], float("inf")).amin(dim=2)
    farthest = distance.masked_fill(same, float("-inf")).amax(dim=1, keepdim=True)
    negative = torch.where(farther.isinf(), farthest, farther)
    hinge = (to_partner - negative + margin).clamp(min=0)
    is_pair = partners != torch.arange(v * b, device=z.device)[:, None]
    return (hinge * is_pair).sum() / is_pair.sum()


METHOD = Exemplar
