"""Which parameters an optimizer treats alike: decayed or not, and how fast a layer learns.

Decay leaves out what timm's `param_groups_weight_decay` leaves out (1-d parameters, biases, and what a network's own
`no_weight_decay` names), and tokens and position embeddings by name, for networks that say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

# Tokens and position embeddings, by the last part of the name: timm's, MONAI's, and those of our methods.
UNDECAYED = {
    "pos_embed", "cls_token", "reg_token", "dist_token", "mask_token", "position_embeddings",
}  # fmt: skip


def parameter_groups(
    modules: Iterable[nn.Module], weight_decay: float, factors: dict[int, float] | None = None
) -> list[dict[str, Any]]:
    """Groups of all trainable parameters, each once: later layers first, decayed ones before others (``decayed``).

    Parameters
    ----------
    factors
        id of a parameter -> factor of its learning rate; a group has it as ``lr_scale``. Others have 1.
    """
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module in modules:
        spared = undecayed(module)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            free = parameter.ndim <= 1 or name.endswith(".bias") or id(parameter) in spared
            factor = (factors or {}).get(id(parameter), 1.0)
            found.setdefault((-factor, free), []).append(parameter)
    return [
        {
            "params": found[key], "weight_decay": 0.0 if key[1] else weight_decay, "decayed": not key[1],
            **({"lr_scale": -key[0]} if factors else {}),
        }
        for key in sorted(found)
    ]  # fmt: skip


def undecayed(module: nn.Module) -> set[int]:
    """Ids of parameters that are not decayed whatever their shape, in networks anywhere within `module`."""
    found = {id(p) for n, p in module.named_parameters() if n.rpartition(".")[2] in UNDECAYED}
    for part in module.modules():
        names = getattr(part, "no_weight_decay", None)
        if callable(names):
            own = dict(part.named_parameters())
            found |= {id(own[name]) for name in names() if name in own}
    return found


def layer_factors(encoder: nn.Module, decay: float) -> dict[int, float]:
    """Factors of the learning rate by id of a parameter: `decay` for the encoder's last layer, its square before that.

    So the layers of BEiT have it (Bao et al. 2022, arXiv 2106.08254, appendix); what is behind the encoder has 1.
    """
    number = layers(encoder)
    last = max(number.values(), default=0)
    return {id(p): decay ** (last - number[name] + 1) for name, p in encoder.named_parameters()}


def layers(encoder: nn.Module) -> dict[str, int]:
    """Name of a parameter -> number of its layer, 0 at the pixels.

    Networks of timm say it themselves (`group_matcher`: stem, then a layer for each block). For others the network's
    children are layers in their order, each member of a list of blocks one of its own; a child of norms and biases
    alone belongs to the layer before it, and parameters of the network itself to the first.
    """
    if hasattr(encoder, "group_matcher"):
        from timm.models import group_parameters

        return group_parameters(encoder, encoder.group_matcher(coarse=False), reverse=True)  # type: ignore[no-any-return]
    found = {name: 0 for name, _ in encoder.named_parameters(recurse=False)}
    number = -1
    for name, child in encoder.named_children():
        # A class of its own that is a sequence, such as two convolutions, is one block.
        several = type(child) in (nn.Sequential, nn.ModuleList)
        blocks = child.named_children() if several else []
        for prefix, block in [(f"{name}.{n}", b) for n, b in blocks] or [(name, child)]:
            own = dict(block.named_parameters())
            number += any(p.ndim > 1 for p in own.values())
            found |= {f"{prefix}.{n}": max(number, 0) for n in own}
    return found
