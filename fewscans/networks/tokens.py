"""Plain ViTs of either library as methods on tokens see them: patches, positions, blocks.

Legend: B batch, C channels, S axes of space, N patches, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewscans.networks.slices import SliceWise


@dataclass(frozen=True)
class Tokens:
    """What a masked method does with a plain ViT, whose layers it uses and does not own."""

    model: Any
    grid: tuple[int, ...]
    """Patches along each axis of space."""
    side: int
    """Side of a patch in pixels."""
    dim: int
    n_prefix: int
    """Tokens before those of patches (class token, registers)."""

    @property
    def n(self) -> int:
        """Patches of a scan."""
        return int(torch.tensor(self.grid).prod())

    def patches(self, x: Tensor) -> Tensor:
        """[B, N, E] of `x` [B, C, *S], positions not added; the last axis of space runs fastest."""
        raise NotImplementedError

    def placed(self, patches: Tensor) -> Tensor:
        """[B, prefix + N, E]: patches with their positions, after the prefix."""
        raise NotImplementedError

    def encoded(self, tokens: Tensor) -> Tensor:
        """[B, M, E] after all blocks and the last norm, of any number M of tokens."""
        raise NotImplementedError


class TimmTokens(Tokens):
    """Of timm's VisionTransformer."""

    def patches(self, x: Tensor) -> Tensor:
        """See `Tokens`."""
        return self.model.patch_embed(x)  # type: ignore[no-any-return]

    def placed(self, patches: Tensor) -> Tensor:
        """See `Tokens`."""
        return self.model._pos_embed(patches)  # type: ignore[no-any-return]

    def encoded(self, tokens: Tensor) -> Tensor:
        """See `Tokens`."""
        model = self.model
        return model.norm(model.blocks(model.norm_pre(tokens)))  # type: ignore[no-any-return]


class MonaiTokens(Tokens):
    """Of MONAI's ViT without class token."""

    def patches(self, x: Tensor) -> Tensor:
        """See `Tokens`."""
        made: Tensor = self.model.patch_embedding.patch_embeddings(x)
        return made.flatten(2).transpose(-1, -2)

    def placed(self, patches: Tensor) -> Tensor:
        """See `Tokens`."""
        embedding = self.model.patch_embedding
        return embedding.dropout(patches + embedding.position_embeddings)  # type: ignore[no-any-return]

    def encoded(self, tokens: Tensor) -> Tensor:
        """See `Tokens`."""
        for block in self.model.blocks:
            tokens = block(tokens)
        return self.model.norm(tokens)  # type: ignore[no-any-return]


def of(model: nn.Module) -> Tokens | None:
    """Tokens of a plain ViT; None for any other network, and for a ViT that looks at slices of volumes."""
    return None if isinstance(model, SliceWise) else of_flat(model)


def of_flat(model: nn.Module) -> Tokens | None:
    """The same; of a ViT that looks at slices of volumes, tokens of a slice."""
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(model, VisionTransformer) and hasattr(model.patch_embed, "grid_size"):
        grid = tuple(model.patch_embed.grid_size)
        side = int(model.patch_embed.patch_size[0])
        return TimmTokens(model, grid, side, model.embed_dim, model.num_prefix_tokens)
    embedding = getattr(model, "patch_embedding", None)
    if embedding is None or not hasattr(model, "blocks"):
        return None
    side = int(embedding.patch_embeddings.kernel_size[0])
    dim = int(embedding.position_embeddings.shape[-1])
    return MonaiTokens(model, model.fewscans_grid, side, dim, 0)  # type: ignore[arg-type]
