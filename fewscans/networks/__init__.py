"""Encoders from timm and MONAI behind one call: any backbone, size, one or three channels, 2D or 3D."""

from __future__ import annotations

from fewscans.networks.features import at_once, embed, embedding_dim, set_batchnorm_statistics
from fewscans.networks.make import build, make_encoder
from fewscans.networks.outline import (
    Block,
    VisionTransformer,
    is_monai,
    is_vit,
    network_kwargs,
    patch_size,
)
from fewscans.networks.parts import in_parts, part_side
from fewscans.networks.pretrained import load_pretrained, read_weights
from fewscans.networks.saved import load_encoder, save_encoder

__all__ = [
    "Block", "VisionTransformer", "at_once", "build", "embed", "embedding_dim", "in_parts", "is_monai", "is_vit",
    "load_encoder", "load_pretrained", "make_encoder", "network_kwargs", "part_side", "patch_size", "read_weights",
    "save_encoder", "set_batchnorm_statistics",
]  # fmt: skip
