"""A network on scans of another side than it was made for: crops of multi-crop training."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fewscans.networks import tokens
from fewscans.networks.slices import SliceWise, over_slices
from fewscans.networks.tokens import MonaiTokens, TimmTokens, Tokens

# Below, the coarsest map of MONAI's UNet has one place, which its norm refuses.
UNET_SIDE = 32


def forward_at(model: nn.Module, x: Tensor) -> Tensor:
    """[B, E] of `x` [B, C, *S] of any side `fitting_side` allows; a ViT's positions are interpolated."""
    plain = tokens.of_flat(model)
    if plain is None:
        return model(x)  # type: ignore[no-any-return]
    if isinstance(model, SliceWise):
        return over_slices(lambda flat: _timm(plain, flat), x)
    if isinstance(plain, TimmTokens):
        return _timm(plain, x)
    assert isinstance(plain, MonaiTokens)
    return _monai(plain, x)


def fitting_side(model: nn.Module, side: int) -> int:
    """The side nearest to `side` that the network takes: whole patches of a ViT, two at least."""
    plain = tokens.of_flat(model)
    if plain is None:
        return max(side, UNET_SIDE) if hasattr(model, "pyramid") else side
    return plain.side * max(2, round(side / plain.side))


def _timm(plain: Tokens, x: Tensor) -> Tensor:
    model: Any = plain.model
    patches = model.patch_embed.norm(model.patch_embed.proj(x).movedim(1, -1))
    was, model.dynamic_img_size = model.dynamic_img_size, True  # timm's own way to interpolate
    try:
        placed = plain.placed(patches)
    finally:
        model.dynamic_img_size = was
    return model.forward_head(plain.encoded(placed))  # type: ignore[no-any-return]


def _monai(plain: Tokens, x: Tensor) -> Tensor:
    own = plain.model.patch_embedding.position_embeddings  # [1, N, E]
    grid = tuple(length // plain.side for length in x.shape[2:])
    return plain.encoded(plain.patches(x) + resampled(own, plain.grid, grid)).mean(dim=1)


def resampled(places: Tensor, grid: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Position embeddings [1, N, E] of the patches of `grid`, interpolated for those of the grid `wanted`."""
    if grid == wanted:
        return places
    mode = {2: "bicubic", 3: "trilinear"}[len(grid)]
    laid_out = places.transpose(1, 2).unflatten(2, grid)
    made = F.interpolate(laid_out, size=wanted, mode=mode, align_corners=False)
    return made.flatten(2).transpose(1, 2)
