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
from fewscans.methods.base import Batch, Method, draw_masked, n_masked_of
from fewscans.networks import VisionTransformer
from fewscans.shape import Shape


class SimMIM(Method):
    """Predict the raw pixels of masked squares from the last features by one linear layer, with an L1 loss."""

    policy_kind: ClassVar[augment.Kind] = "mae"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 0.05

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.is_vit = isinstance(encoder, VisionTransformer)
        size, channels = shape.size, shape.channels
        features, rows = _last_features(encoder, size, channels)
        # Each place of the last feature map answers for a square of this side; what sticks out is cut off.
        self.stride = math.ceil(size / rows)
        self.mask_patch = settings.mask_patch or _mask_patch(size, self.stride, self.is_vit)
        self._check_mask_patch()
        self.rows = size // self.mask_patch
        self.n_masked = n_masked_of(settings.mask_ratio, self.rows**2)
        token = torch.zeros(1, 1, features) if self.is_vit else torch.full((1, channels, 1, 1), 0.5)
        self.mask_token = nn.Parameter(
            nn.init.trunc_normal_(token, std=0.02) if self.is_vit else token
        )
        self.predictor = nn.Conv2d(features, self.stride**2 * channels, kernel_size=1)
        self.shuffle = nn.PixelShuffle(self.stride)

    def _check_mask_patch(self) -> None:
        side = self.mask_patch
        if self.shape.size % side or side == self.shape.size:
            raise UserError(
                f"mask_patch {side} does not divide the image's side {self.shape.size}. Choose a divisor of it."
            )
        if self.is_vit and side % self.stride:
            raise UserError(
                f"mask_patch {side} is not a multiple of the ViT's patch, {self.stride}."
            )

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """A crop, and which squares are masked: bool [B, rows, columns], exactly `n_masked` in each."""
        masked = draw_masked(batch.random(self.rows**2), self.n_masked)
        return batch.augmented(0, self.policy), masked.view(-1, self.rows, self.rows).to(
            batch.x.device
        )

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean absolute error of the masked pixels."""
        x, masked = views
        features = self.features(x, masked)
        predicted = self.predict(features)
        embedding = features.mean(dim=(2, 3)).detach()
        return masked_l1(predicted, x, enlarge(masked, self.mask_patch)), {"embedding": embedding}

    def features(self, x: Tensor, masked: Tensor) -> Tensor:
        """Last feature map [B, E, h, w] of the masked images."""
        if not self.is_vit:
            hidden = enlarge(masked, self.mask_patch)
            return self.encoder.forward_features(torch.where(hidden, self.mask_token, x))
        vit = self.encoder
        tokens = vit.patch_embed(x)
        hidden = enlarge(masked, self.mask_patch // self.stride).reshape(*tokens.shape[:-1], 1)
        tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        tokens = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(tokens))))
        patches = tokens[:, vit.num_prefix_tokens :]
        side = self.shape.size // self.stride
        return patches.transpose(1, 2).reshape(len(x), -1, side, side)

    def predict(self, features: Tensor) -> Tensor:
        """Pixels [B, C, H, W]."""
        return self.shuffle(self.predictor(features))[..., : self.shape.size, : self.shape.size]

    def resolved(self) -> dict[str, Any]:
        """The mask in numbers."""
        return {"mask_patch": self.mask_patch, "n_patches": self.rows**2, "n_masked": self.n_masked}

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


def _last_features(encoder: nn.Module, size: int, channels: int) -> tuple[int, int]:
    """Channels and rows of the last feature map at this size."""
    if isinstance(encoder, VisionTransformer):
        return encoder.embed_dim, encoder.patch_embed.grid_size[0]
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        shape = encoder.forward_features(torch.zeros(1, channels, size, size)).shape
    encoder.train(was_training)
    if len(shape) != 4 or shape[2] != shape[3]:
        name = type(encoder).__name__
        raise UserError(
            f"simmim needs a plain ViT or a network with a feature map [C, H, W]; {name} has neither."
        )
    return int(shape[1]), int(shape[2])


def _mask_patch(size: int, stride: int, is_vit: bool) -> int:
    """A ViT's patch; else the divisor of `size` nearest to the stride, and to a sixth of the side where that is less.

    The paper has 32 of 192 pixels. A stride of 32 at 48 pixels would leave nothing to choose from.
    """
    if is_vit:
        return stride
    wanted = min(stride, size / 6)
    return min(
        (side for side in range(2, size // 2 + 1) if size % side == 0),
        key=lambda side: abs(side - wanted),
    )


def enlarge(masked: Tensor, factor: int) -> Tensor:
    """Mask [B, h, w] with each place `factor` times as large: bool [B, 1, H, W]."""
    return masked.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)[:, None]


def masked_l1(predicted: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
    """Absolute error, mean over the pixels (and colours) where `hidden` [B, 1, H, W] (equation 1)."""
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    weight = hidden.to(predicted.dtype)
    return ((predicted - x).abs() * weight).sum() / (weight.sum() * x.shape[1])


METHOD = SimMIM
