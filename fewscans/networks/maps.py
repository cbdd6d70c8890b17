"""Feature maps of convolutional networks of either library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewscans.errors import UserError
from fewscans.networks import tokens
from fewscans.networks.slices import SliceWise
from fewscans.shape import Shape


def feature_map(model: nn.Module, x: Tensor) -> Tensor:
    """The last features of `x` [B, C, *S] that still have places: [B, E, *s].

    Raises
    ------
    UserError
        The network looks at slices one by one: its features have no places in a volume.
    """
    if isinstance(model, SliceWise):
        raise UserError(
            f"backbone '{model.fewscans_network['backbone']}' looks at slices one by one, and the method fills in what"
            " was hidden of a volume. Take an inflated- or a monai- network, or a method of views (simclr)."
        )
    found: Any = model
    if hasattr(found, "forward_features"):
        return found.forward_features(x)  # type: ignore[no-any-return]
    return pyramid(model, x)[-1]


def pyramid(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Feature maps [B, E_i, *s_i], from fine to coarse, each half as long along every axis as the one before.

    Of MONAI's networks; timm's have ``forward_intermediates``.
    """
    found: Any = model
    if hasattr(found, "pyramid"):
        return found.pyramid(x)  # type: ignore[no-any-return]
    if hasattr(found, "forward_intermediates"):
        return list(found.forward_intermediates(x, intermediates_only=True))
    x = found.act(found.bn1(found.conv1(x)))
    maps = [x]
    x = x if found.no_max_pool else found.maxpool(x)
    for layer in (found.layer1, found.layer2, found.layer3, found.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def last_map(model: nn.Module, shape: Shape) -> tuple[int, int] | None:
    """Channels and places along an axis of the last feature map (or of a ViT's patches); None where there is none."""
    plain = tokens.of(model)
    if plain is not None:
        return plain.dim, plain.grid[0]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        made = feature_map(model, torch.zeros(1, *shape.full)).shape
    model.train(was_training)
    if len(made) != 2 + shape.ndim or len(set(made[2:])) > 1:
        return None
    return int(made[1]), int(made[2])


def map_shapes(model: nn.Module, shape: Shape) -> list[tuple[int, int]]:
    """Channels and places along an axis of each map of `pyramid`, fine to coarse; none where there are no maps."""
    known = any(hasattr(model, name) for name in ("pyramid", "forward_intermediates", "layer4"))
    if tokens.of(model) is not None or isinstance(model, SliceWise) or not known:
        return []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        made = [one.shape for one in pyramid(model, torch.zeros(1, *shape.full))]
    model.train(was_training)
    return [(int(one[1]), int(one[2])) for one in made if len(one) == 2 + shape.ndim]
