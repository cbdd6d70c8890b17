"""Weights that others have trained, as a file of the workflow: local, or once from timm's hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fewscans import networks
from fewscans.compat import ensure_torchvision
from fewscans.config.backbones import flat_name
from fewscans.errors import UserError
from fewscans.files import atomic, sha256_file, write_json
from fewscans.networks.foreign import monai_shape
from fewscans.shape import Shape

ensure_torchvision()

import timm  # noqa: E402  (torchvision must be made importable first)

log = logging.getLogger("fewscans")
HUB = "hub"


def fetch(backbone: str, weights: str, out: Path | None) -> dict[str, Any]:
    """Write `encoder.safetensors` and `encoder.json` to the folder `out`; facts for the side-car.

    Without `out` they are only got (into the hub's cache) and checked.

    Parameters
    ----------
    backbone
        Name of the network. Weights are kept as they were trained, on three channels;
        `networks.load_pretrained` adapts channels and size to a recipe.
    weights
        A local .safetensors or .pth file, or ``hub``.

    Raises
    ------
    UserError
        The file does not fit the backbone; or the hub cannot be reached, or has no weights for it.
    """
    state, source = _from_hub(backbone) if weights == HUB else _from_file(backbone, Path(weights))
    if out is None:
        return {"backbone": backbone, "weights_from": source}
    out.mkdir(parents=True, exist_ok=True)
    file = out / "encoder.safetensors"
    with atomic(file) as temporary:
        save_file(
            {name: value.contiguous().clone() for name, value in state.items()}, str(temporary)
        )
    # What a file was trained on elsewhere is not ours to check: it counts as having seen none of
    # our scans.
    facts = {
        "method": "imagenet",
        "backbone": backbone,
        "weights_from": source,
        "digest": sha256_file(file)[:16],
        "source_scans": [],
        "parents": [],
        "transductive": False,
        "device_seconds": 0.0,
    }
    write_json(out / "encoder.json", facts)
    return facts


def _from_file(backbone: str, path: Path) -> tuple[dict[str, Tensor], str]:
    """(state dict, name of the file), once it is known to fit."""
    state = networks.read_weights(path)
    if networks.is_monai(backbone):
        shape, patch = monai_shape(backbone, state)
    else:
        _, size, _ = _own_config(backbone).get("input_size") or (3, 224, 224)
        shape, patch = Shape(size, 3), None
    networks.load_pretrained(flat_name(backbone), path, shape, patch_size=patch)
    return state, path.name


def _from_hub(backbone: str) -> tuple[dict[str, Tensor], str]:
    """(state dict, id on the hub) of timm's default weights for `backbone`."""
    config = _own_config(backbone)
    known = config.get("hf_hub_id") or config.get("url")
    way_out = (
        f"give a local file: `imagenet_weights: {{{backbone}: PATH}}` in the config, with PATH "
        "from another machine (.safetensors or .pth)"
    )
    name = f"backbone '{backbone}'"
    if not known:
        raise UserError(
            f"{name}: timm has no pretrained weights for it. Choose another, or {way_out}."
        )
    log.info("asking the hub for %s", known)
    try:
        model = timm.create_model(flat_name(backbone), pretrained=True)
    # The hub's client has dozens of errors: no route, no name, a proxy, a full disk.
    except Exception as error:
        raise UserError(
            f"{name}: its weights ({known}) are not on this machine and the hub cannot be reached "
            f"({type(error).__name__}). Run where there is internet, or {way_out}."
        ) from error
    return model.state_dict(), str(known)


def _own_config(backbone: str) -> dict[str, Any]:
    """What timm knows of the default weights, or nothing; a UserError for an unknown name."""
    networks.is_vit(backbone)
    if networks.is_monai(backbone):
        return {}
    config = timm.get_pretrained_cfg(flat_name(backbone))
    return {} if config is None else config.to_dict()
