"""Weights of timm or MONAI from a local file, adapted to size and channels."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewscans.config.backbones import INFLATED, flat_name
from fewscans.errors import UserError
from fewscans.networks.foreign import check_covered, load_own
from fewscans.networks.make import lifted
from fewscans.networks.outline import is_monai, network_kwargs, timm
from fewscans.shape import Shape


def load_pretrained(
    backbone: str,
    weights_path: str | Path,
    shape: Shape,
    *,
    patch_size: int | None = None,
    init_key: int = 0,
) -> nn.Module:
    """Encoder with the weights of a local file (.safetensors, or .pth without pickled objects), adapted by timm.

    timm sums the first layer's weights over colours for one channel, and resamples position and patch embeddings for
    another size. The images are standardised inside, before the first layer, by the mean and deviation that the
    weights were trained with. ViTs keep the pooling that they were trained with. Weights of three
    dimensions say nothing of what they were trained on: scans stay in [0, 1].

    Raises
    ------
    UserError
        The file is not there, is no state dict, or does not fit the backbone.
    """
    state = read_weights(Path(weights_path))
    inflated = backbone.startswith(INFLATED) and any(v.ndim == 5 for v in state.values())
    if is_monai(backbone) or inflated:
        return load_own(backbone, state, weights_path, shape, patch_size)
    kwargs = network_kwargs(backbone, shape, patch_size)
    for key in ("global_pool", "fc_norm"):
        kwargs.pop(key, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_key % 2**63)
        try:
            overlay = {"state_dict": dict(state)}
            model = timm.create_model(
                flat_name(backbone), pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
            )
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{weights_path}: not weights of '{backbone}': {error}") from None
    # timm only warns of what it leaves at random.
    check_covered((name for name, _ in model.named_parameters()), state, backbone, weights_path)
    model = lifted(backbone, model)
    model.fewscans_network = {"backbone": backbone, "kwargs": kwargs}
    standardise_input(model, *_trained_with(model, shape.channels))
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names to weights, of a file that holds nothing else.

    Raises
    ------
    UserError
        There is no such file, or it is none of weights.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. Give the weights' path in `imagenet_weights`, or leave it out."
        )
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, "cpu", weights_only=True)
        )
    except Exception as error:
        # torch's own words advise to load it all the same, with whatever code it brings.
        objects = isinstance(error, pickle.UnpicklingError)
        why = "has more than tensors" if objects else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: cannot be read as weights ({why}). Save the state dict alone:"
            " `torch.save(model.state_dict(), path)`."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(f"{path}: not a state dict (names to tensors).")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def standardise_input(model: nn.Module, mean: Sequence[float], sd: Sequence[float]) -> None:
    """Let the first layer of a timm model standardise scans [B, C, *S] in [0, 1] by the channels' `mean` and `sd`.

    On the layer and not on the model, so that every way into it does: features, patches, crops of other sides.
    """
    config: Any = model.pretrained_cfg
    shift = torch.tensor(mean, dtype=torch.float32)
    factor = 1 / torch.tensor(sd, dtype=torch.float32)

    def standardise(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        column = (1, -1, *[1] * (x.ndim - 2))
        return ((x - shift.to(x.device).view(column)) * factor.to(x.device).view(column), *rest)

    first = config["first_conv"]
    for name in [first] if isinstance(first, str) else first:
        model.get_submodule(name).register_forward_pre_hook(standardise)
    model.fewscans_network["standardise"] = {"mean": list(mean), "sd": list(sd)}  # type: ignore[index]


def _trained_with(model: nn.Module, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of the images that the weights were trained on; for one channel the means over colours."""
    config: Any = model.pretrained_cfg
    mean, sd = np.array(config.get("mean", (0.0,))), np.array(config.get("std", (1.0,)))
    if channels == 1:
        mean, sd = mean.mean(keepdims=True), sd.mean(keepdims=True)
    return mean.tolist(), sd.tolist()
