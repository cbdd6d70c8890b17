"""What a backbone is, by its name and without weights: which library's, whether a plain ViT, what it is built with."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from fewscans.compat import ensure_torchvision
from fewscans.config.backbones import MONAI, flat_name, is_lifted, misfit
from fewscans.errors import UserError
from fewscans.networks import monai_names
from fewscans.shape import Shape

ensure_torchvision()

import timm  # noqa: E402  (torchvision must be made importable first)
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = [
    "Block",
    "VisionTransformer",
    "is_monai",
    "is_vit",
    "network_kwargs",
    "outline",
    "patch_size",
    "timm",
]


def is_monai(backbone: str) -> bool:
    """Whether MONAI has the network; all others are timm's."""
    return backbone.startswith(MONAI)


@lru_cache(maxsize=64)
def outline(backbone: str) -> nn.Module:
    """Of timm, without weights (the image network of a lifted one), to ask its class and patch size."""
    backbone = flat_name(backbone)
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=5, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'? Near: {', '.join(near)}." if near else ""
        raise UserError(
            f"backbone '{backbone}' is not a timm model.{hint} `timm.list_models()` lists them."
        )
    with torch.device("meta"):
        return timm.create_model(backbone, num_classes=0)


def is_vit(backbone: str) -> bool:
    """Whether `backbone` is a plain ViT: one sequence of tokens, one resolution; lifted ones are none."""
    if is_monai(backbone):
        return backbone in monai_names.VITS
    return isinstance(outline(backbone), VisionTransformer) and not is_lifted(backbone)


def patch_size(backbone: str, shape: Shape, override: int | None = None) -> int | None:
    """Side in pixels of a ViT's patch in scans of this shape; None for other networks.

    Without `override` the divisor of `size` nearest to size / 8 (volumes: size / 6, as their patches are many), at
    least 4 and at most the model's own: small images have patches enough.

    Raises
    ------
    UserError
        The patch does not divide the image.
    """
    if is_lifted(backbone):
        return patch_size(flat_name(backbone), Shape(shape.size, shape.channels), override)
    if not is_vit(backbone):
        return None
    size = shape.size
    own = 16 if is_monai(backbone) else int(outline(backbone).patch_embed.patch_size[0])
    if override is not None:
        if size % override:
            raise UserError(
                f"patch_size {override} does not divide the image's side {size}. Choose a divisor of it."
            )
        return override
    fitting = [side for side in range(min(4, own), own + 1) if size % side == 0]
    if not fitting:
        raise UserError(
            f"no patch of 4 to {own} pixels divides the image's side {size}. Choose a size that is a multiple of 8."
        )
    wanted = size / (8 if shape.ndim == 2 else 6)
    return min(fitting, key=lambda side: (abs(side - wanted), side))


def network_kwargs(backbone: str, shape: Shape, patch: int | None = None) -> dict[str, Any]:
    """What `timm.create_model(backbone, ...)`, or MONAI's class, is called with; written out beside the weights.

    Raises
    ------
    UserError
        No such network, or one of images for volumes.
    """
    if (problem := misfit(backbone, shape.ndim)) is not None:
        raise UserError(f"backbone {problem}")
    if is_monai(backbone):
        return monai_names.kwargs_of(backbone, shape, patch_size(backbone, shape, patch))
    if is_lifted(backbone):
        return network_kwargs(flat_name(backbone), Shape(shape.size, shape.channels), patch)
    kwargs: dict[str, Any] = {"num_classes": 0, "in_chans": shape.channels}
    if isinstance(outline(backbone), VisionTransformer):
        kwargs |= {"img_size": shape.size, "patch_size": patch_size(backbone, shape, patch)}
        # The mean over patches is a better frozen feature than a class token that nothing was trained to fill
        # (masked methods), and serves small data as well; the final norm stays where plain ViTs have it.
        kwargs |= {"global_pool": "avg", "fc_norm": False}
    elif _takes_size(backbone, shape.size):
        kwargs["img_size"] = shape.size
    return kwargs


@lru_cache(maxsize=64)
def _takes_size(backbone: str, size: int) -> bool:
    """Whether the model is built for a size (windows, position embeddings): Swin and its like."""
    try:
        with torch.device("meta"):
            timm.create_model(backbone, num_classes=0, img_size=size)
    except TypeError:
        return False
    return True
