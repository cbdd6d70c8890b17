"""Supervised contrastive learning (Khosla et al. 2020): scans of one class attract, all others repel.

"Supervised Contrastive Learning", arXiv 2004.11362. A reference that sees all labels of the training fold, whatever
the budget of a row; tables say so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewscans.methods.base import Batch
from fewscans.methods.contrast import attract, unit
from fewscans.methods.simclr import SimCLR


class SupCon(SimCLR):
    """The views of all scans of a class attract; those without a label have their own other view alone."""

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan, and the classes."""
        return batch.augmented(0, self.policy), batch.augmented(1, self.policy), batch.target

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_out of the projections, over the whole batch."""
        x1, x2, target = views
        h = self.encoder(torch.cat([x1, x2]))
        z1, z2 = (self.gather(z) for z in self.projector(h).chunk(2))
        loss = l_out(z1, z2, self.gather(target), self.settings.temperature)
        return loss, {"embedding": h.detach()}


def l_out(z1: Tensor, z2: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Equation 2, mean over all 2B views (the paper has the sum).

    -1 / |P(i)| sum_{p in P(i)} log( exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t) ), rows normalised; P(i) are the
    other views of i's class.

    Parameters
    ----------
    z1, z2
        Projections [B, D] of the two views, B >= 2.
    target
        Classes, int64 [B]; -1: not known. Such a scan is a negative to all others, as in SimCLR.
    """
    z = unit(torch.cat([z1, z2]))
    scan = torch.arange(len(z1), device=z.device).repeat(2)
    target = target.repeat(2)
    alike = (target[:, None] == target) & (target >= 0) | (scan[:, None] == scan)
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return attract(z @ z.T / temperature, alike & others, others)


METHOD = SupCon
