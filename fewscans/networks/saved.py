"""Encoders on disk: plain weights of timm or MONAI as safetensors, and what they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from fewscans.errors import UserError
from fewscans.files import atomic
from fewscans.networks.make import build
from fewscans.networks.pretrained import standardise_input
from fewscans.shape import Shape


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
    network = meta["network"]
    model = build(network["backbone"], network["kwargs"])
    if "standardise" in network:  # it started from weights that were trained on such images
        standardise_input(model, **network["standardise"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{folder}/encoder.safetensors does not fit encoder.json: {error}"
        ) from None
    return model, meta
