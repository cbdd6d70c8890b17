"""Encoders from timm behind one call: any backbone, size and one or three channels; saved as plain timm weights."""

from __future__ import annotations

import difflib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewscans.compat import ensure_torchvision
from fewscans.errors import UserError
from fewscans.files import atomic
from fewscans.resident import Resident
from fewscans.shape import Shape

ensure_torchvision()

import timm  # noqa: E402  (torchvision must be made importable first)
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = [
    "Block", "VisionTransformer", "build", "embed", "embedding_dim", "is_vit", "load_encoder", "load_pretrained",
    "make_encoder", "network_kwargs", "patch_size", "save_encoder", "set_batchnorm_statistics",
]  # fmt: skip


@lru_cache(maxsize=64)
def _outline(backbone: str) -> nn.Module:
    """The model without weights, to ask its class and patch size; costs no memory."""
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=5, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'? Near: {', '.join(near)}." if near else ""
        raise UserError(
            f"backbone '{backbone}' is not a timm model.{hint} `timm.list_models()` lists them."
        )
    with torch.device("meta"):
        return timm.create_model(backbone, num_classes=0)


def is_vit(backbone: str) -> bool:
    """Whether `backbone` is a plain ViT: one sequence of tokens, one resolution."""
    return isinstance(_outline(backbone), VisionTransformer)


def patch_size(backbone: str, shape: Shape, override: int | None = None) -> int | None:
    """Side in pixels of a ViT's patch in scans of this shape; None for other networks.

    Without `override` the divisor of `size` nearest to size / 8, at least 4 and at most the model's own: small
    images have patches enough.

    Raises
    ------
    UserError
        The patch does not divide the image.
    """
    if not is_vit(backbone):
        return None
    size = shape.size
    own = int(_outline(backbone).patch_embed.patch_size[0])
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
    return min(fitting, key=lambda side: (abs(side - size / 8), side))


def network_kwargs(backbone: str, shape: Shape, patch: int | None = None) -> dict[str, Any]:
    """What `timm.create_model(backbone, ...)` is called with; written out beside the weights."""
    kwargs: dict[str, Any] = {"num_classes": 0, "in_chans": shape.channels}
    outline = _outline(backbone)
    if isinstance(outline, VisionTransformer):
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


def make_encoder(
    backbone: str, shape: Shape, *, patch_size: int | None, init_key: int
) -> nn.Module:
    """Model of timm without classifier, [B, C, *S] -> [B, E]; its weights follow from `init_key` alone.

    Raises
    ------
    UserError
        No such backbone, or it cannot be built at this size.
    """
    kwargs = network_kwargs(backbone, shape, patch_size)
    return build(backbone, kwargs, init_key)


def build(backbone: str, kwargs: dict[str, Any], init_key: int = 0) -> nn.Module:
    """`timm.create_model` with weights drawn from a stream of its own; the global one is left as it was."""
    _outline(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_key % 2**63)
        try:
            model = timm.create_model(backbone, pretrained=False, **kwargs)
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            shown = ", ".join(f"{key}={value}" for key, value in kwargs.items())
            raise UserError(
                f"backbone '{backbone}' cannot be built with {shown}: {error}"
            ) from error
    model.fewscans_network = {"backbone": backbone, "kwargs": kwargs}
    return model


def embedding_dim(model: nn.Module) -> int:
    """Length E of an embedding."""
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def embed(
    model: nn.Module, resident: Resident, index: Any, batch: int = 256
) -> NDArray[np.float32]:
    """Embeddings [n, E] of the scans at `index`, unaugmented, in eval mode; the model's mode is put back."""
    index = np.asarray(index, dtype=np.int64)
    out = np.empty((len(index), embedding_dim(model)), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(index), batch):
            some = index[first : first + batch]
            out[first : first + len(some)] = model(resident.batch(some)).float().cpu().numpy()
    model.train(was_training)
    return out


def set_batchnorm_statistics(
    model: nn.Module, resident: Resident, index: Any, batch: int = 256
) -> None:
    """Set running means and variances of batch norms to the average over the scans at `index`. No gradients.

    An untrained network has means 0 and variances 1, which fit no layer: frozen features would be judged by a
    mistake. Networks without batch norm are left as they are.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    index = np.asarray(index, dtype=np.int64)
    if not norms or not len(index):
        return
    was_training = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over the batches
        norm.train()
    # Equal batches, since each counts alike; a single scan would have no variance in 1 x 1 maps.
    parts = np.array_split(index, max(1, round(len(index) / batch)))
    with torch.no_grad():
        for part in parts:
            model(resident.batch(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in was_training.items():
        module.training = mode


def save_encoder(path: str | Path, model: nn.Module) -> None:
    """Write the plain timm state dict as safetensors: ``timm.create_model(...).load_state_dict(load_file(path))``."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, str(temporary), metadata={"format": "pt"})


def load_encoder(folder: str | Path, shape: Shape) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder that `pretrain` left in `folder`, and its encoder.json.

    Raises
    ------
    UserError
        Files are missing, or the encoder was made for another size or number of channels.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        state = load_file(folder / "encoder.safetensors")
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no encoder here ({Path(error.filename or '').name} is missing)."
        ) from None
    wanted = Shape.of(meta["input"])
    if wanted != shape:
        raise UserError(
            f"{folder}: this encoder takes {wanted}, and the store has {shape} ({shape.axis_names}). "
            "Use the recipe it was pretrained with."
        )
    model = build(meta["network"]["backbone"], meta["network"]["kwargs"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{folder}/encoder.safetensors does not fit encoder.json: {error}"
        ) from None
    return model, meta


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
    weights were trained with. ViTs keep the pooling that they were trained with.

    Raises
    ------
    UserError
        The file is not there, is no state dict, or does not fit the backbone.
    """
    state = _read_weights(Path(weights_path))
    kwargs = network_kwargs(backbone, shape, patch_size)
    for key in ("global_pool", "fc_norm"):
        kwargs.pop(key, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_key % 2**63)
        try:
            overlay = {"state_dict": dict(state)}
            model = timm.create_model(
                backbone, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
            )
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{weights_path}: not weights of '{backbone}': {error}") from None
    _check_covered(model, state, backbone, weights_path)
    model.fewscans_network = {"backbone": backbone, "kwargs": kwargs}
    _standardise_input(model, shape.channels)
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
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
        raise UserError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {error})."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(f"{path}: not a state dict (names to tensors).")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _check_covered(
    model: nn.Module, state: dict[str, Tensor], backbone: str, path: str | Path
) -> None:
    """Refuse a file that leaves weights at random: timm only warns of that."""
    lacking = [name for name, _ in model.named_parameters() if name not in state]
    if lacking:
        n = sum(1 for _ in model.named_parameters())
        raise UserError(
            f"{path}: not weights of '{backbone}': {len(lacking)} of {n} parameters are not in it ({lacking[0]}, ...)."
        )


def _standardise_input(model: nn.Module, channels: int) -> None:
    """Standardise [0, 1] images before the first layer; for one channel with the means over colours."""
    config = model.pretrained_cfg
    mean, sd = np.array(config.get("mean", (0.0,))), np.array(config.get("std", (1.0,)))
    if channels == 1:
        mean, sd = mean.mean(keepdims=True), sd.mean(keepdims=True)
    shift = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
    factor = torch.tensor(1 / sd, dtype=torch.float32).view(1, -1, 1, 1)

    def standardise(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        return ((x - shift.to(x.device)) * factor.to(x.device), *rest)

    model.register_forward_pre_hook(standardise)
