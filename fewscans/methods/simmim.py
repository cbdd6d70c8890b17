"""SimMIM (Xie et al. 2022): predict masked pixels from the last features.

"SimMIM: a Simple Framework for Masked Image Modeling", arXiv 2111.09886. A ViT gets mask tokens in place of
patches (section 3.2); a convolutional network, which has none, gets a learned grey in place of masked pixels.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans import augment
from fewscans.errors import UserError
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.masks import check_square, draw_squares, enlarge, fitting_square, n_masked_of
from fewscans.networks import tokens
from fewscans.networks.maps import feature_map, last_map
from fewscans.shape import Shape


class SimMIM(Method):
    """Predict the raw pixels of masked squares from the last features by one linear layer, with an L1 loss."""

    policy_kind: ClassVar[augment.Kind] = "mae"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 0.05

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.tokens = tokens.of(encoder)
        size, channels, ndim = shape.size, shape.channels, shape.ndim
        is_vit = self.tokens is not None
        features, rows = _last_features(encoder, shape)
        # Each place of the last feature map answers for a square of this side; what sticks out is cut off.
        self.stride = math.ceil(size / rows)
        self.mask_patch = settings.mask_patch or (
            self.stride if is_vit else fitting_square(size, self.stride)
        )
        self._check_mask_patch()
        self.rows = size // self.mask_patch
        self.n_masked = n_masked_of(settings.mask_ratio, self.rows**ndim)
        token = (
            torch.zeros(1, 1, features) if is_vit else torch.full((1, channels, *[1] * ndim), 0.5)
        )
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(token, std=0.02) if is_vit else token)
        kind = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.predictor = kind(features, self.stride**ndim * channels, kernel_size=1)

    def _check_mask_patch(self) -> None:
        side = self.mask_patch
        check_square(side, self.shape.size)
        if self.tokens is not None and side % self.stride:
            raise UserError(
                f"mask_patch {side} is not a multiple of the ViT's patch, {self.stride}."
            )

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """A crop, and which squares are masked: bool [B, *rows], exactly `n_masked` in each."""
        masked = draw_squares(batch, self.rows, self.n_masked)
        return batch.augmented(0, self.policy), masked

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean absolute error of the masked pixels."""
        x, masked = views
        features = self.features(x, masked)
        predicted = self.predict(features)
        embedding = features.mean(dim=tuple(range(2, features.ndim))).detach()
        return masked_l1(predicted, x, enlarge(masked, self.mask_patch)), {"embedding": embedding}

    def features(self, x: Tensor, masked: Tensor) -> Tensor:
        """Last feature map [B, E, *s] of the masked scans."""
        vit = self.tokens
        if vit is None:
            hidden = enlarge(masked, self.mask_patch)
            return feature_map(self.encoder, torch.where(hidden, self.mask_token, x))
        patches = vit.patches(x)
        hidden = enlarge(masked, self.mask_patch // self.stride).reshape(*patches.shape[:-1], 1)
        patches = torch.where(hidden, self.mask_token.to(patches.dtype), patches)
        patches = vit.encoded(vit.placed(patches))[:, vit.n_prefix :]
        return patches.transpose(1, 2).reshape(len(x), -1, *vit.grid)

    def predict(self, features: Tensor) -> Tensor:
        """Pixels [B, C, *S]; what sticks out of the scan is cut off."""
        made = spread(self.predictor(features), self.stride)
        return made[(..., *[slice(self.shape.size)] * self.shape.ndim)]

    def resolved(self) -> dict[str, Any]:
        """The mask in numbers."""
        return {
            "mask_patch": self.mask_patch,
            "n_patches": self.rows**self.shape.ndim,
            "n_masked": self.n_masked,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Visible pixels as they are, masked ones predicted."""
        x, masked = self.views(batch)
        predicted = self.predict(self.features(x, masked)).float()
        hidden = enlarge(masked, self.mask_patch)
        return {
            "original": x,
            "masked": torch.where(hidden, torch.full_like(x, 0.5), x),
            "reconstructed": torch.where(hidden, predicted, x).clamp(0, 1),
        }


def _last_features(encoder: nn.Module, shape: Shape) -> tuple[int, int]:
    """Channels and rows of the last feature map at this size."""
    found = last_map(encoder, shape)
    if found is None:
        name = type(encoder).__name__
        raise UserError(
            f"simmim needs a plain ViT or a network with a feature map [C, H, W]; {name} has neither."
        )
    return found


def spread(x: Tensor, side: int) -> Tensor:
    """[B, C side^n, *s] -> [B, C, *(s side)]: each place's numbers become a square (cube); PixelShuffle over n axes."""
    b, _, *places = x.shape
    n = len(places)
    cut = x.reshape(b, -1, *[side] * n, *places)
    order = [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
    return cut.permute(0, 1, *order).reshape(b, cut.shape[1], *[side * length for length in places])


def masked_l1(predicted: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
    """Absolute error, mean over the pixels (and colours) where `hidden` [B, 1, *S] (equation 1)."""
    predicted = precise(predicted)
    weight = hidden.to(predicted.dtype)
    return ((predicted - x).abs() * weight).sum() / (weight.sum() * x.shape[1])


METHOD = SimMIM
