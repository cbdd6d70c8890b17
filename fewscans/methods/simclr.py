"""SimCLR (Chen et al. 2020): two views of a scan are alike, other scans are not.

"A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods.base import Batch, Method
from fewscans.methods.contrast import related, two_views, unit
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class SimCLR(Method):
    """Two views of a scan attract, the views of all other scans of the batch repel."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    # The paper's LARS serves batches of thousands. For AdamW, of 1e-3, 2e-3 and 4e-3 this had the lowest
    # loss after 180 steps on CT slices at 48 pixels (a choice that takes no label).
    base_lr: ClassVar[float] = 4e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e = embedding_dim(encoder)
        hidden = settings.projector_hidden or e
        # g of section 2.1, with the batch norm of the authors' code.
        self.projector = nn.Sequential(
            nn.Linear(e, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, settings.projector_dim, bias=False),
        )  # fmt: skip

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan."""
        return two_views(batch, self.policy, self.settings)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """NT-Xent of the projections; the embedding is what comes before the projector."""
        x1, x2, *patient = views
        h = self.encoder(torch.cat([x1, x2]))
        # Negatives are the views of the whole batch, also of what other processes hold of it.
        z1, z2 = (self.gather(z) for z in self.projector(h).chunk(2))
        spared = related(self.gather(*patient)) if patient else None
        return nt_xent(z1, z2, self.settings.temperature, spared), {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """Width of the head."""
        return {"projector_hidden": self.projector[0].out_features}


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, spared: Tensor | None = None) -> Tensor:
    """Normalised temperature-scaled cross entropy, equation 1, mean over all 2B views.

    l(i, j) = -log( exp(sim(z_i, z_j) / t) / sum_{k != i} exp(sim(z_i, z_k) / t) ), sim the cosine; for i the j is the
    other view of the same scan.

    Parameters
    ----------
    z1, z2
        Projections [B, D] of the two views, B >= 2.
    spared
        Which scans are no negatives of which, bool [B, B]; a scan's own views attract all the same.
    """
    z = unit(torch.cat([z1, z2]))
    n = len(z1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))  # k != i
    other = torch.arange(2 * n, device=z.device).roll(n)
    if spared is not None:
        never = spared.repeat(2, 2).scatter(1, other[:, None], False)
        similarity = similarity.masked_fill(never, float("-inf"))
    return F.cross_entropy(similarity, other)


METHOD = SimCLR
