"""Heads that methods train an encoder through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(
    widths: Sequence[int], *, last: Literal["bias", "plain", "norm", "fixed-norm"] = "bias"
) -> nn.Sequential:
    """Linear layers of `widths`, batch norm and ReLU between them.

    A linear layer that a batch norm follows has no bias, which the norm would take away again.

    Parameters
    ----------
    widths
        Of the input, of each layer.
    last
        What the last layer has: a bias, nothing, a batch norm, or one without scale and shift.
    """
    layers: list[nn.Module] = []
    *inner, final = pairwise(widths)
    for a, b in inner:
        layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(*final, bias=last == "bias"))
    if last in ("norm", "fixed-norm"):
        layers.append(nn.BatchNorm1d(final[1], affine=last == "norm"))
    return nn.Sequential(*layers)


def classifier(width: int, n_classes: int) -> nn.Sequential:
    """One linear layer on embeddings [B, width] whose numbers are standardised over the batch first.

    Embeddings of a new network have a large common part (ViTs above all) that hides what differs between them: without
    the norm the first hundred steps tell nothing apart.
    """
    return nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, n_classes))
