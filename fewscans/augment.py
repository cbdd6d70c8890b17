"""Views of scans: parameters are drawn by key, then applied to the whole batch on its device.

Drawing is apart from applying, so that a view can be replayed. Crop, flip, rotation, scale and shift are composed
into one affine map and interpolated once: each further interpolation would blur texture. Meant for CT and its like:
no vertical flip, no colour, intensity changes as windows and scanners make them.

Legend: B batch, C channels, H W space. x: [B, C, H, W] float32 in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fewscans.keyed import key_of, uniform

Kind = Literal["ssl", "supervised", "mae"]
# Numbers per sample; one column each in `draw`. Adding one at the end changes none of the others.
_N_NUMBERS = 18


@dataclass(frozen=True)
class Policy:
    """Ranges that parameters are drawn from. Lengths are shares of the image's side, angles degrees."""

    crop_area: tuple[float, float] = (0.35, 1.0)
    """Area of the crop, as a share of the image."""
    crop_aspect: float = 4 / 3
    """Width over height of the crop lies between 1 / this and this."""
    horizontal_flip: float = 0.5
    """Probability."""
    vertical_flip: float = 0.0
    """Probability; 0 since up and down are not alike in a body."""
    rotation_deg: float = 0.0
    """Largest angle, either way."""
    scale: float = 0.0
    """Largest relative change of size."""
    translation: float = 0.0
    """Largest shift."""
    brightness: float = 0.0
    """Largest shift of intensity."""
    contrast: float = 0.0
    """Largest relative change of contrast (a wider or narrower window)."""
    gamma: float = 0.0
    """Largest |log| of the exponent."""
    noise_sd: float = 0.0
    """Largest standard deviation of Gaussian noise; uniform from 0."""
    blur_sd: float = 0.0
    """Largest standard deviation of Gaussian blur; uniform from a tenth of it."""
    blur_share: float = 0.5
    """Probability of blur (SimCLR, appendix A)."""

    @property
    def changes_intensity(self) -> bool:
        """Whether anything but geometry is changed."""
        return max(self.brightness, self.contrast, self.gamma, self.noise_sd, self.blur_sd) > 0


def policy(strength: float = 1.0, kind: Kind = "ssl") -> Policy:
    """Policy at a dial `strength` from 0 (crops and flips alone) over 1 (the policy as it is) to 2.

    ``ssl``: strong, for contrastive views; crops keep at least 35 % of the area (SimCLR: 8 % of a photograph), since a
    lesion must be likely to be in both. ``supervised``: milder. ``mae``: crops and flips at any strength, as the
    paper found best (He et al. 2022, table 1e): masking is the augmentation.
    """
    if kind == "mae":
        return Policy()
    if kind == "supervised":
        return Policy(
            crop_area=(0.6, 1.0),
            crop_aspect=1.15,
            rotation_deg=10 * strength,
            scale=0.1 * strength,
            translation=0.05 * strength,
            brightness=0.1 * strength,
            contrast=0.2 * strength,
            gamma=0.2 * strength,
            noise_sd=0.03 * strength,
        )
    if kind != "ssl":
        raise ValueError(f"no policy '{kind}'")
    return Policy(
        rotation_deg=15 * strength,
        scale=0.1 * strength,
        translation=0.05 * strength,
        brightness=0.2 * strength,
        contrast=0.4 * strength,
        gamma=0.4 * strength,
        noise_sd=0.05 * strength,
        blur_sd=strength / 64,
    )


@dataclass(frozen=True)
class Parameters:
    """What is done to each sample of a batch; everything that `render` needs."""

    affine: Tensor
    """[B, 2, 3]: from output to input coordinates, x before y, both -1 to 1 over the image."""
    brightness: Tensor
    """[B]: added."""
    contrast: Tensor
    """[B]: factor about the image's mean."""
    gamma: Tensor
    """[B]: exponent."""
    noise_sd: Tensor
    """[B]: standard deviation, with the sign of the noise taken from the bank."""
    noise_start: Tensor
    """[B]: place in the noise bank, in [0, 1)."""
    blur_sd: Tensor
    """[B]: share of the side; 0 = none."""
    changes_intensity: bool = True
    """False: only `affine` is applied."""

    def to(self, device: torch.device) -> Parameters:
        """The same on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Parameters(
            **{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()}
        )


def draw(
    keys: NDArray[np.uint64],
    *,
    seed_key: int,
    epoch: int | NDArray[np.integer],
    view: int,
    policy: Policy,
) -> Parameters:
    """Parameters of one view of the scans `keys` [B]; each sample's depend on its own key alone."""
    u = uniform(seed_key, epoch, keys, view, _N_NUMBERS)
    signed = 2 * u - 1
    neutral = np.ones(len(u))

    def tensor(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    on = u[:, 14] < policy.blur_share
    noise_sign = np.where(u[:, 15] < 0.5, -1.0, 1.0)
    return Parameters(
        affine=tensor(_affine(u, signed, policy)),
        brightness=tensor(policy.brightness * signed[:, 8]),
        contrast=tensor(neutral + policy.contrast * signed[:, 9]),
        gamma=tensor(np.exp(policy.gamma * signed[:, 10])),
        noise_sd=tensor(policy.noise_sd * u[:, 11] * noise_sign),
        noise_start=tensor(u[:, 12]),
        blur_sd=tensor(np.where(on, policy.blur_sd * (0.1 + 0.9 * u[:, 13]), 0.0)),
        changes_intensity=policy.changes_intensity,
    )


def _affine(
    u: NDArray[np.float64], signed: NDArray[np.float64], policy: Policy
) -> NDArray[np.float64]:
    """[B, 2, 3]: crop, flip, rotation about the crop's middle, scale and shift as one map."""
    low, high = policy.crop_area
    area = low + (high - low) * u[:, 0]
    aspect = np.exp(math.log(policy.crop_aspect) * signed[:, 1])
    width, height = np.minimum(1, np.sqrt(area * aspect)), np.minimum(1, np.sqrt(area / aspect))
    size = np.exp(math.log1p(policy.scale) * signed[:, 6])
    flip_x = np.where(u[:, 4] < policy.horizontal_flip, -1.0, 1.0)
    flip_y = np.where(u[:, 5] < policy.vertical_flip, -1.0, 1.0)
    angle = np.deg2rad(policy.rotation_deg) * signed[:, 7]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = width * size * flip_x, height * size * flip_y
    # In coordinates from -1 to 1 a crop of width w has room for its middle between -(1 - w) and 1 - w.
    middle_x = (1 - width) * signed[:, 2] + 2 * policy.translation * signed[:, 16]
    middle_y = (1 - height) * signed[:, 3] + 2 * policy.translation * signed[:, 17]
    rows = [
        np.stack([cos * a, -sin * b, middle_x], axis=1),
        np.stack([sin * a, cos * b, middle_y], axis=1),
    ]
    return np.stack(rows, axis=1)


def render(x: Tensor, parameters: Parameters) -> Tensor:
    """The view of `x` [B, C, H, W] that `parameters` describe; same shape, in [0, 1], without gradients."""
    with torch.no_grad():
        p = parameters.to(x.device)
        grid = F.affine_grid(p.affine, list(x.shape), align_corners=False)
        out = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return _intensity(out, p) if p.changes_intensity else out


def _intensity(x: Tensor, p: Parameters) -> Tensor:
    """Window (contrast, brightness), gamma, blur, noise, in the order in which a scanner's chain has them. In place."""
    column = (-1, 1, 1, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrast = p.contrast.view(column)
    x.mul_(contrast).add_(mean * (1 - contrast) + p.brightness.view(column))
    # exp(g log x) is a third of the cost of pow on CPU; the floor is far below a grey level.
    x.clamp_(1e-6, 1).log_().mul_(p.gamma.view(column)).exp_()
    blurred = torch.nonzero(p.blur_sd > 0)[:, 0]
    if len(blurred):
        x[blurred] = blur(x[blurred], p.blur_sd[blurred])
    _add_noise(x, p)
    return x.clamp_(0, 1)


def blur(x: Tensor, sd: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation `sd` [B] (share of the side) of its own for each sample.

    As two products with banded matrices: at small sizes faster than B separate convolutions.
    """
    rows, columns = (_blur_matrix(n, sd) for n in x.shape[2:])
    return torch.matmul(torch.matmul(rows[:, None], x), columns[:, None].transpose(-1, -2))


def _blur_matrix(n: int, sd: Tensor) -> Tensor:
    """[B, n, n], rows sum to 1: at the border the kernel is cut off and made whole again."""
    distance = torch.arange(n, device=sd.device, dtype=torch.float32)
    squared = (distance[:, None] - distance[None, :]).square()
    exponent = squared / (2 * (sd * n).clamp(min=1e-3).square()).view(-1, 1, 1)
    # The cut at exp(-30) is below float's precision; without it denormal numbers make the products 20 times slower.
    kernel = torch.exp(-exponent.clamp_(max=30))
    return kernel / kernel.sum(dim=-1, keepdim=True)


def _add_noise(x: Tensor, p: Parameters) -> None:
    """Add each sample's stretch of the noise bank, in place.

    Drawing new normals for each sample by key would cost more than the rest of the augmentation. A stretch from a
    keyed place of a fixed bank, with a keyed sign, is white noise within a view; two views share a part of their noise
    only where their places fall together.
    """
    bank = _noise_bank(x[0].numel(), x.device)
    starts = (p.noise_start * bank.shape[0]).long().clamp_(max=bank.shape[0] - 1)
    x.add_(bank.index_select(0, starts).view_as(x) * p.noise_sd.view(-1, 1, 1, 1))


@lru_cache(maxsize=4)
def _noise_bank(length: int, device: torch.device) -> Tensor:
    """Overlapping stretches [M, length] of fixed standard normals: a view, so M costs nothing."""
    generator = torch.Generator().manual_seed(key_of("noise bank") % 2**63)
    normals = torch.randn(length + 2**18, generator=generator)
    return normals.to(device).unfold(0, length, 1)


def apply(
    x: Tensor,
    keys: NDArray[np.uint64],
    *,
    seed_key: int,
    epoch: int | NDArray[np.integer],
    view: int,
    policy: Policy,
) -> Tensor:
    """One view of `x` [B, C, H, W]: `draw`, then `render`."""
    return render(x, draw(keys, seed_key=seed_key, epoch=epoch, view=view, policy=policy))
