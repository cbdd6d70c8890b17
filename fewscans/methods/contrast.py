"""What contrastive methods have in common: which pairs attract, and which are no negatives.

Scans of one patient look alike for reasons that are worth learning, and are no evidence against each other. So they
may be spared (their similarity leaves the denominator), or be each other's positives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewscans import augment
from fewscans.config.encoders.contrastive import ContrastiveSettings
from fewscans.methods.base import precise
from fewscans.methods.batch import Batch


def two_views(
    batch: Batch, policy: augment.Policy, settings: ContrastiveSettings
) -> tuple[Tensor, ...]:
    """Two augmentations [B, C, *S] of each scan, the second of a companion where those are the positives.

    Where patients are spared their numbers [B] come third.
    """
    second = batch
    if settings.positives != "self":
        second = batch.companions(settings.positives, view=1)
    views = batch.augmented(0, policy), second.augmented(1, policy)
    return (*views, batch.patient) if settings.spares else views


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in single precision or better."""
    return F.normalize(precise(x), dim=1)


def related(patient: Tensor, other: Tensor | None = None) -> Tensor:
    """Which of `patient` [B] and `other` [K] (without it the same) are one: bool [B, K]."""
    return patient[:, None] == (patient if other is None else other)[None, :]


def attract(similarity: Tensor, positive: Tensor, allowed: Tensor) -> Tensor:
    """Mean over rows of the mean over their positives p of -log( exp(s_p) / sum over allowed a of exp(s_a) ).

    A row without positives counts nothing.

    Parameters
    ----------
    similarity
        [B, K], divided by the temperature.
    positive, allowed
        bool [B, K]; what is not allowed has no part, and every positive is.
    """
    # The least number and not minus infinity: a row with nothing allowed has finite gradients.
    least = torch.finfo(similarity.dtype).min
    log_prob = similarity.masked_fill(~allowed, least).log_softmax(dim=1)
    n = positive.sum(dim=1)
    each = -log_prob.masked_fill(~positive, 0.0).sum(dim=1) / n.clamp(min=1)
    return each.sum() / (n > 0).sum().clamp(min=1)
