"""MAE (He et al. 2022): reconstruct masked patches from the visible ones.

"Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377. For plain ViTs of timm (2D) and MONAI, whose
own layers are used, so that the encoder stays a plain model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans import augment
from fewscans.errors import UserError
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.masks import draw_masked, n_masked_of, patchify, unpatchify
from fewscans.networks import Block, tokens
from fewscans.networks.tokens import Tokens
from fewscans.shape import Shape


class MAE(Method):
    """Encode the visible patches alone, reconstruct the masked ones from them with a light decoder."""

    policy_kind: ClassVar[augment.Kind] = "mae"
    # The paper's 1.5e-4 is for batches of 4,096 and a million images; a few hundred steps need more (tried on CT
    # slices at 48 pixels: the loss after 180 steps, which takes no label).
    base_lr: ClassVar[float] = 3e-3
    weight_decay: ClassVar[float] = 0.05
    betas: ClassVar[tuple[float, float]] = (0.9, 0.95)  # appendix A.1

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.tokens = _tokens(encoder, settings.backbone)
        self.side, self.n_patches = self.tokens.side, self.tokens.n
        if self.n_patches < 2:
            raise UserError(
                f"mae: a scan of {shape.size} pixels is one patch, so that nothing would be left to see. Use a smaller "
                "`patch_size`, or a larger `size`."
            )
        self.n_masked = n_masked_of(settings.mask_ratio, self.n_patches)
        dim = _decoder_dim(settings.decoder_dim, self.tokens.dim, shape.ndim)
        self.to_decoder = nn.Linear(self.tokens.dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("position", sincos(dim, self.tokens.grid), persistent=False)
        heads = max(n for n in range(1, max(2, dim // 16 + 1)) if dim % n == 0)
        self.decoder = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True) for _ in range(settings.decoder_depth))
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.to_pixels = nn.Linear(dim, self.side**shape.ndim * shape.channels)
        nn.init.normal_(self.mask_token, std=0.02)
        for layer in (self.to_decoder, self.to_pixels):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """A crop, and which patches are masked: bool [B, N], exactly `n_masked` in each row."""
        masked = draw_masked(batch.random(self.n_patches), self.n_masked)
        return batch.augmented(0, self.policy), masked.to(batch.x.device)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error on the masked patches."""
        x, masked = views
        tokens, order = self.encode(x, masked)
        predicted = self.decode(tokens, order)
        target = patchify(x, self.side)
        if self.settings.normalise_target:
            target, _, _ = normalise_patches(target)
        embedding = tokens[:, self.tokens.n_prefix :].mean(dim=1)
        return masked_error(predicted, target, masked), {"embedding": embedding.detach()}

    def encode(self, x: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, prefix + visible, E] of the visible patches, and the order [B, N] that has those first."""
        vit = self.tokens
        tokens = vit.placed(vit.patches(x))
        prefix, patches = tokens[:, : vit.n_prefix], tokens[:, vit.n_prefix :]
        order = torch.argsort(masked.to(torch.uint8), dim=1, stable=True)
        visible = order[:, : self.n_patches - self.n_masked]
        patches = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[2]))
        return vit.encoded(torch.cat([prefix, patches], dim=1)), order

    def decode(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Predicted patches [B, N, P]: mask tokens at the masked places, all with their positions."""
        tokens = self.to_decoder(tokens)
        n_prefix = self.tokens.n_prefix
        prefix, visible = tokens[:, :n_prefix], tokens[:, n_prefix:]
        masks = self.mask_token.to(tokens.dtype).expand(len(tokens), self.n_masked, -1)
        shuffled = torch.cat([visible, masks], dim=1)
        back = torch.argsort(order, dim=1)
        patches = (
            shuffled.gather(1, back[..., None].expand(-1, -1, shuffled.shape[2])) + self.position
        )
        decoded = self.decoder(torch.cat([prefix, patches], dim=1))[:, n_prefix:]
        return self.to_pixels(self.decoder_norm(decoded))

    def resolved(self) -> dict[str, Any]:
        """Size of the decoder, and the mask in numbers."""
        return {
            "decoder_dim": self.to_decoder.out_features,
            "n_patches": self.n_patches,
            "n_masked": self.n_masked,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Visible patches as they are, masked ones predicted (scaled back by the patch's own mean and deviation)."""
        x, masked = self.views(batch)
        predicted = self.decode(*self.encode(x, masked)).float()
        patches = patchify(x, self.side)
        if self.settings.normalise_target:
            _, mean, sd = normalise_patches(patches)
            predicted = predicted * sd + mean
        hidden = masked[..., None]
        return {
            "original": x,
            "masked": self._image(torch.where(hidden, torch.full_like(patches, 0.5), patches)),
            "reconstructed": self._image(torch.where(hidden, predicted, patches)).clamp(0, 1),
        }

    def _image(self, patches: Tensor) -> Tensor:
        return unpatchify(patches, self.side, self.shape)


def _tokens(encoder: nn.Module, backbone: str) -> Tokens:
    found = tokens.of(encoder)
    if found is None:
        raise UserError(
            f"mae needs a plain ViT, and '{backbone}' is none. Use vit_tiny_patch16_224 or its like (for volumes "
            "monai-vit-tiny), or method simmim."
        )
    return found


def _decoder_dim(asked: int | None, width: int, ndim: int) -> int:
    """As asked for, else half of the encoder's width, at least 32, as the position embedding needs it."""
    unit = 2 * ndim
    if asked is not None and asked % unit:
        raise UserError(
            f"decoder_dim {asked} is not a multiple of {unit}, as the position embedding needs. Use "
            f"{asked // unit * unit + unit}."
        )
    return asked or -(-max(32, width // 2) // unit) * unit


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [B, N, P] with mean 0 and variance 1 each, their means and deviations [B, N, 1] (section 3)."""
    mean = patches.mean(dim=-1, keepdim=True)
    sd = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / sd, mean, sd


def masked_error(predicted: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Squared error of `predicted` [B, N, P], mean over a patch, then over the `masked` [B, N] patches (section 3)."""
    per_patch = (precise(predicted) - target).square().mean(dim=-1)
    weight = masked.to(per_patch.dtype)
    return (per_patch * weight).sum() / weight.sum()


def sincos(dim: int, grid: Sequence[int]) -> Tensor:
    """Fixed position embedding [1, N, dim]: for each axis of space, the last one first, as many sines as cosines.

    Frequencies 10000^(-i / n), i < n = dim / (2 axes), as in Vaswani et al. 2017 (section 3.5) for each axis.
    """
    n = dim // (2 * len(grid))
    frequency = 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)
    places = torch.meshgrid(*[torch.arange(length) for length in grid], indexing="ij")
    angles = [axis.reshape(-1, 1).double() * frequency for axis in reversed(places)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float()[None]


METHOD = MAE
