"""Encoders with keyed weights: any backbone, image or volume, one or three channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewscans.config.backbones import INFLATED, SLICES, flat_name
from fewscans.errors import UserError
from fewscans.networks.inflated import draw, inflate
from fewscans.networks.outline import is_monai, network_kwargs, outline, timm
from fewscans.networks.slices import slice_wise
from fewscans.shape import Shape


def make_encoder(
    backbone: str, shape: Shape, *, patch_size: int | None, init_key: int
) -> nn.Module:
    """Model without classifier, [B, C, *S] -> [B, E]; its weights follow from `init_key` alone.

    Raises
    ------
    UserError
        No such backbone, or it cannot be built at this size.
    """
    kwargs = network_kwargs(backbone, shape, patch_size)
    return build(backbone, kwargs, init_key)


def build(backbone: str, kwargs: dict[str, Any], init_key: int = 0) -> nn.Module:
    """`timm.create_model` with weights drawn from a stream of its own; the global one is left as it was."""
    if not is_monai(backbone):
        outline(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_key % 2**63)
        try:
            model = _create(backbone, kwargs)
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            shown = ", ".join(f"{key}={value}" for key, value in kwargs.items())
            raise UserError(
                f"backbone '{backbone}' cannot be built with {shown}: {error}"
            ) from error
    model.fewscans_network = {"backbone": backbone, "kwargs": kwargs}
    return model


def _create(backbone: str, kwargs: dict[str, Any]) -> nn.Module:
    if not is_monai(backbone):
        model = lifted(backbone, timm.create_model(flat_name(backbone), **kwargs))
        if backbone.startswith(INFLATED):
            draw(model)
        return model
    from fewscans.networks import monai_nets  # takes seconds

    return monai_nets.build(backbone, kwargs)


def lifted(backbone: str, flat: nn.Module) -> nn.Module:
    """Timm's image network `flat`, made one of volumes where the name says so; its weights stay, or are inflated."""
    if backbone.startswith(SLICES):
        return slice_wise(flat)
    return inflate(flat, backbone) if backbone.startswith(INFLATED) else flat
