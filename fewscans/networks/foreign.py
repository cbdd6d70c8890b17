"""Weights that MONAI's classes, or networks of three dimensions, were trained to elsewhere, fitted to a recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewscans.errors import UserError
from fewscans.networks.make import build
from fewscans.networks.monai_names import RESNETS, VITS
from fewscans.networks.outline import network_kwargs
from fewscans.networks.resized import resampled
from fewscans.shape import Shape

log = logging.getLogger("fewscans")
# What MONAI's blocks have and an encoder does not use, in some of its versions.
UNUSED = "cross_attn"
COUNTER = "num_batches_tracked"


def load_own(
    backbone: str, state: dict[str, Tensor], path: str | Path, shape: Shape, patch_size: int | None
) -> nn.Module:
    """The encoder with weights of its own class: MONAI's `ResNet` (as MedicalNet's), `ViT`, `BasicUNet`; inflated ones.

    Shortcuts and biases, which MONAI leaves to a switch, are those of the file. Its strides cannot be seen in it:
    they are ours, a first stride of 2 from 64 voxels on.

    Raises
    ------
    UserError
        They are those of another network.
    """
    kwargs = network_kwargs(backbone, shape, patch_size)
    if backbone in RESNETS:
        has_bias = any(name.endswith("downsample.0.bias") for name in state)
        convolved = any(".downsample." in name for name in state) or backbone.endswith("50")
        kwargs |= {"bias_downsample": has_bias, "shortcut_type": "B" if convolved else "A"}
    if backbone in VITS:
        _check_patch(kwargs["patch_size"], state, backbone, path)
        kwargs["qkv_bias"] = any(name.endswith("qkv.bias") for name in state)
    model = build(backbone, kwargs)
    load_fitting(model, state, backbone, path)
    return model


def monai_shape(backbone: str, state: dict[str, Tensor]) -> tuple[Shape, int | None]:
    """(scans, side of a patch) that weights of one of MONAI's classes were made for, as far as they tell."""
    kernel = next((value for value in state.values() if value.ndim >= 4), None)
    if kernel is None:
        return Shape(64, 1, 3), None
    channels, ndim, side = int(kernel.shape[1]), kernel.ndim - 2, int(kernel.shape[-1])
    places = [v for name, v in state.items() if name.endswith("position_embeddings")]
    if backbone not in VITS or not places:
        return Shape(64, channels, ndim), None
    return Shape(side * round(places[0].shape[1] ** (1 / ndim)), channels, ndim), side


def _check_patch(patch: int, state: dict[str, Tensor], backbone: str, path: str | Path) -> None:
    kernel = next((v for n, v in state.items() if n.endswith("patch_embeddings.weight")), None)
    if kernel is not None and kernel.shape[-1] != patch:
        side = kernel.shape[-1]
        said = f"their patches have {side} voxels, and these {patch}. Write `patch_size: {side}`"
        raise _not_these(backbone, path, said)


def load_fitting(
    model: nn.Module, state: dict[str, Tensor], backbone: str, path: str | Path
) -> None:
    """Set all weights of `model`, which has names of `state`; channels and a ViT's positions are adapted.

    Raises
    ------
    UserError
        Weights are lacking, of another shape, or of a larger network. Heads and decoders are left, and told in the log.
    """
    own = model.state_dict()
    state = _found_below(own, state)
    check_covered((n for n in own if UNUSED not in n and COUNTER not in n), state, backbone, path)
    extra = [name for name in state if name not in own and UNUSED not in name]
    inside = {name for name, _ in model.named_children()}
    if larger := [name for name in extra if name.partition(".")[0] in inside]:
        raise _not_these(backbone, path, f"they are of a larger network ({larger[0]}, ...)")
    if extra:
        parts = dict.fromkeys(name.partition(".")[0] for name in extra)
        log.info("%s: left out, as an encoder has none: %s", path, ", ".join(parts))
    first = next(name for name, value in own.items() if value.ndim >= 4)
    for name, value in own.items():
        if name not in state:
            continue
        given = state[name]
        if name == first:
            given = _with_channels(given, value, backbone, path)
        elif name.endswith("position_embeddings"):
            given = _with_places(given, model, backbone, path)
        if given.shape != value.shape:
            found, wanted = (" x ".join(map(str, of.shape)) for of in (given, value))
            raise _not_these(backbone, path, f"{name} is {found}, not {wanted}")
        own[name] = given.to(value.dtype)
    model.load_state_dict(own)


def check_covered(
    names: Iterable[str], state: dict[str, Tensor], backbone: str, path: str | Path
) -> None:
    """Refuse a file that lacks some of the weights `names`."""
    names = list(names)
    lacking = [name for name in names if name not in state]
    if lacking:
        said = f"{len(lacking)} of {len(names)} parameters are not in it ({lacking[0]}, ...)"
        raise _not_these(backbone, path, said)


def _found_below(own: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without what stands before all names of the network, where it is part of another (``vit.``)."""
    one = next(iter(own))
    before = ["", *(name.removesuffix(one) for name in state if name.endswith("." + one))]
    best = max(before, key=lambda prefix: sum(prefix + name in state for name in own))
    return {name.removeprefix(best): value for name, value in state.items()}


def _with_channels(given: Tensor, value: Tensor, backbone: str, path: str | Path) -> Tensor:
    """Kernels on as many channels as `value` has: summed over them, or shared out among them."""
    if given.ndim != value.ndim:
        kinds = {4: "images", 5: "volumes"}
        said = f"they take {kinds.get(given.ndim, 'other data')}, and the recipe makes {kinds[value.ndim]}"
        raise _not_these(backbone, path, said)
    found, wanted = given.shape[1], value.shape[1]
    if found == wanted:
        return given
    if wanted == 1:
        return given.sum(dim=1, keepdim=True)
    if found == 1:
        return given.expand(value.shape[0], wanted, *given.shape[2:]) / wanted
    raise _not_these(backbone, path, f"they take {found} channels, and the recipe makes {wanted}")


def _with_places(given: Tensor, model: Any, backbone: str, path: str | Path) -> Tensor:
    """Position embeddings [1, N, E] of as many patches as `model` has; the file's are taken for those of a cube."""
    grid = model.fewscans_grid
    side = round(given.shape[1] ** (1 / len(grid)))
    if side ** len(grid) != given.shape[1]:
        said = f"its {given.shape[1]} position embeddings are those of no square or cube"
        raise _not_these(backbone, path, said)
    return resampled(given, (side,) * len(grid), grid)


def _not_these(backbone: str, path: str | Path, why: str) -> UserError:
    return UserError(f"{path}: not weights of '{backbone}': {why}.")
