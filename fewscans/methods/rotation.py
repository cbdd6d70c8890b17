"""Rotation (Gidaris et al. 2018): tell by which right angle a scan was turned.

"Unsupervised Representation Learning by Predicting Image Rotations", arXiv 1803.07728. All rotations of an image are in
one batch (section 3.1). Volumes: "3D Self-Supervised Methods for Medical Imaging" (Taleb et al. 2020, arXiv 2006.03829,
section 3.3): none, and 90, 180, 270 degrees about each axis, 10 classes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.heads import classifier
from fewscans.networks import embedding_dim
from fewscans.shape import Shape


class Rotation(Method):
    """A linear layer on the embedding says which of the right angles it was."""

    policy_kind: ClassVar[augment.Kind] = "upright"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.classifier = classifier(embedding_dim(encoder), len(turns(shape.ndim)))

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """One augmentation of each scan, upright."""
        return (batch.augmented(0, self.policy),)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of all rotations of all scans (equations 2 and 3)."""
        turned = rotated(views[0])
        r, b = turned.shape[:2]
        h = self.encoder(turned.flatten(0, 1))
        classes = torch.arange(r, device=h.device).repeat_interleave(b)
        logits = precise(self.classifier(h))
        return F.cross_entropy(logits, classes), {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """How many ways a scan is turned."""
        return {"n_rotations": self.classifier[1].out_features}

    def shown(self, batch: Batch) -> Tensor:
        """All rotations."""
        return rotated(self.views(batch)[0]).transpose(0, 1)


def turns(ndim: int) -> list[tuple[int, tuple[int, int]]]:
    """Quarter turns, and the axes of [B, C, *S] in whose plane: none first, then plane by plane."""
    planes = list(combinations(range(2, 2 + ndim), 2))
    return [(0, planes[0]), *((k, plane) for plane in planes for k in (1, 2, 3))]


def rotated(x: Tensor) -> Tensor:
    """[R, B, C, *S]: `x` [B, C, *S] in all rotations; pixels change places, none is interpolated."""
    return torch.stack([torch.rot90(x, k, plane) for k, plane in turns(x.ndim - 2)])


METHOD = Rotation
