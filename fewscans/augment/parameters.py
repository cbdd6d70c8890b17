"""What is done to each sample of a batch: drawn by key, so that a view can be replayed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewscans.augment import grid
from fewscans.augment.numbers import Numbers
from fewscans.augment.policy import Policy


@dataclass(frozen=True)
class Parameters:
    """Everything that `render` needs; what is None is not done to any sample."""

    affine: Tensor | None = None
    """[B, ndim, ndim + 1]: from coordinates of the view to those of the image, x first, both -1 to 1."""
    elastic: Tensor | None = None
    """[B]: largest displacement, as a share of the side."""
    elastic_start: Tensor | None = None
    """[B]: place in the bank of noise, in [0, 1); so are the other starts."""
    window: Tensor | None = None
    """[B, 2]: intensities that become 0 and 1."""
    brightness: Tensor | None = None
    """[B]: added."""
    contrast: Tensor | None = None
    """[B]: factor about the image's mean."""
    gamma: Tensor | None = None
    """[B]: exponent."""
    bias: Tensor | None = None
    """[B]: largest |log| of the bias field."""
    bias_start: Tensor | None = None
    """[B]."""
    blur_sd: Tensor | None = None
    """[B]: share of the side; 0 = none."""
    sharpen: Tensor | None = None
    """[B]: amount of unsharp masking; 0 = none."""
    noise_sd: Tensor | None = None
    """[B]: standard deviation, with the sign that the noise is taken with."""
    noise_start: Tensor | None = None
    """[B]."""
    shuffle: Tensor | None = None
    """[B] bool: whose pixels are shuffled locally."""
    shuffle_start: Tensor | None = None
    """[B]."""
    erase_low: Tensor | None = None
    """[B, ndim]: corner of the erased box as shares of the sides, in the image's order of axes; 1 = no box."""
    erase_high: Tensor | None = None
    """[B, ndim]: the corner across."""
    erase_start: Tensor | None = None
    """[B]; None: the box is filled with the mean."""

    def to(self, device: torch.device) -> Parameters:
        """The same on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Parameters(**{k: v.to(device) if v is not None else v for k, v in moved.items()})


def draw(
    keys: NDArray[np.uint64],
    *,
    seed_key: int,
    epoch: int | NDArray[np.integer],
    view: int,
    policy: Policy,
    ndim: int = 2,
) -> Parameters:
    """Parameters of one view of the scans `keys` [B]; each sample's depend on its own key alone."""
    u = Numbers(seed_key, epoch, keys, view)
    made: dict[str, Tensor] = {}
    if policy.moves:
        made["affine"] = _tensor(grid.draw_affine(u, policy, ndim))
    if policy.elastic:
        made["elastic"] = _tensor(policy.elastic * u["elastic"])
        made["elastic_start"] = _tensor(u["elastic_start"])
    made |= _intensity(u, policy)
    if policy.noise_sd:
        sign = np.where(u["noise_sign"] < 0.5, -1.0, 1.0)
        made["noise_sd"] = _tensor(policy.noise_sd * u["noise_sd"] * sign)
        made["noise_start"] = _tensor(u["noise_start"])
    if policy.shuffle_share:
        made["shuffle"] = torch.from_numpy(u["shuffle_on"] < policy.shuffle_share)
        made["shuffle_start"] = _tensor(u["shuffle_start"])
    if policy.erase_share:
        made |= _erased(u, policy, ndim)
    return Parameters(**made)


def _intensity(u: Numbers, policy: Policy) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    if policy.window:
        ends = [policy.window * u.signed("window_low"), 1 + policy.window * u.signed("window_high")]
        made["window"] = _tensor(np.stack(ends, axis=1))
    if policy.brightness or policy.contrast:
        made["brightness"] = _tensor(policy.brightness * u.signed("brightness"))
        made["contrast"] = _tensor(1 + policy.contrast * u.signed("contrast"))
    if policy.gamma:
        made["gamma"] = _tensor(np.exp(policy.gamma * u.signed("gamma")))
    if policy.bias_field:
        made["bias"] = _tensor(policy.bias_field * u["bias"])
        made["bias_start"] = _tensor(u["bias_start"])
    if policy.blur_sd:
        drawn = policy.blur_sd * (0.1 + 0.9 * u["blur_sd"])
        made["blur_sd"] = _tensor(np.where(u["blur_on"] < policy.blur_share, drawn, 0.0))
    if policy.sharpen:
        on = u["sharpen_on"] < policy.sharpen_share
        made["sharpen"] = _tensor(np.where(on, policy.sharpen * u["sharpen"], 0.0))
    return made


def _erased(u: Numbers, policy: Policy, ndim: int) -> dict[str, Tensor]:
    """Boxes whose area is a share of the image's, of aspects up to 3 (Zhong et al. 2017), wholly inside."""
    sides = grid.box_sides(u, policy.erase_area, ndim)
    names = [f"erase_{axis}" for axis in grid.AXES[:ndim]]
    low = np.stack([u[name] for name in names], axis=1) * (1 - sides)
    on = (u["erase_on"] < policy.erase_share)[:, None]
    # Here x comes last, as in the image.
    made = {
        "erase_low": _tensor(np.where(on, low, 1.0)[:, ::-1]),
        "erase_high": _tensor(np.where(on, low + sides, 1.0)[:, ::-1]),
    }
    if policy.erase_with == "noise":
        made["erase_start"] = _tensor(u["erase_start"])
    return made


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
