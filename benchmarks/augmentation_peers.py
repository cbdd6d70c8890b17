"""Families of augmentation in the words of other libraries, with the ranges that ours has; for augmentation.py.

Each library gives {family: function of a batch [B, C, *S] in [0, 1] to a batch}, with parameters of its own for each
sample: kornia draws them by the batch, the others are called sample by sample. A family that a library has not, or not
in 3D, is left out. Where it has a part of a family only (`PARTS`), that part is measured, in its favour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Transform = Callable[[Tensor], Tensor]
PARTS = {
    ("torchvision", "intensity"): "brightness and contrast alone",
    ("torchio", "intensity"): "gamma alone",
}
_GAMMA = (math.exp(-0.4), math.exp(0.4))


def _each(transform: Callable[[Any], Any]) -> Transform:
    def run(x: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(transform(one)) for one in x])

    return run


def kornia(shape: tuple[int, ...]) -> dict[str, Transform]:
    """By the batch."""
    import kornia.augmentation as K

    if len(shape) == 3:
        affine = [K.RandomAffine3D((10, 10, 15), (0.05, 0.05, 0.05), (0.9, 1.1), p=1.0)]
        return {"affine": torch.nn.Sequential(*affine)}
    flip, p = K.RandomHorizontalFlip(p=0.5), {"same_on_batch": False, "p": 1.0}
    crop = K.RandomResizedCrop(shape, (0.35, 1.0), (3 / 4, 4 / 3), **p)
    affine = K.RandomAffine(15, (0.05, 0.05), (0.9, 1.1), padding_mode="border", **p)
    intensity = [
        K.RandomBrightness((0.8, 1.2), **p), K.RandomContrast((0.6, 1.4), **p), K.RandomGamma(_GAMMA, **p),
    ]  # fmt: skip
    noise = K.RandomGaussianNoise(0.0, 0.05, **p)
    blur = K.RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.5)
    made = {
        "crop": [flip, crop],
        "affine": [affine],
        "elastic": [K.RandomElasticTransform((33, 33), (8.0, 8.0), (0.05, 0.05), **p)],
        "intensity": intensity,
        "noise": [noise],
        "blur": [blur],
        "sharpen": [K.RandomSharpness(0.5, p=0.2)],
        "cutout": [K.RandomErasing((0.02, 0.2), (1 / 3, 3.0), p=0.5)],
        "ssl": [flip, crop, affine, *intensity, noise, blur],
    }
    return {name: torch.nn.Sequential(*parts) for name, parts in made.items()}


def torchvision(shape: tuple[int, ...]) -> dict[str, Transform]:
    """Of images, one by one: a call on a batch has one draw for all."""
    from fewscans.compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.transforms import v2

    if len(shape) == 3:
        return {}
    crop = [v2.RandomHorizontalFlip(0.5), v2.RandomResizedCrop(shape, (0.35, 1.0))]
    affine = [
        v2.RandomAffine(15, (0.05, 0.05), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
    ]
    intensity = [v2.ColorJitter(0.2, 0.4)]
    noise, blur = (
        [v2.GaussianNoise(0.0, 0.05)],
        [v2.RandomApply([v2.GaussianBlur(7, (0.1, 1.0))], 0.5)],
    )
    made = {
        "crop": crop, "affine": affine, "elastic": [v2.ElasticTransform(20.0, 8.0)], "intensity": intensity,
        "noise": noise, "blur": blur, "sharpen": [v2.RandomAdjustSharpness(1.5, 0.2)],
        "erase": [v2.RandomErasing(0.5, (0.02, 0.2), (1 / 3, 3.0), value="random")],
        "cutout": [v2.RandomErasing(0.5, (0.02, 0.2), (1 / 3, 3.0))],
        "ssl": [*crop, *affine, *intensity, *noise, *blur],
    }  # fmt: skip
    return {name: _each(v2.Compose(parts)) for name, parts in made.items()}


def monai(shape: tuple[int, ...]) -> dict[str, Transform]:
    """Array transforms, sample by sample."""
    import monai.transforms as M

    ndim, side = len(shape), shape[0]
    spread = 0.35 ** (1 / ndim)
    crop = [
        M.RandFlip(0.5, ndim - 1),
        M.RandScaleCrop(spread, 1.0, random_size=True),
        M.Resize(shape),
    ]
    angles = math.radians(15) if ndim == 2 else tuple(math.radians(a) for a in (15, 10, 10))
    affine = [
        M.RandAffine(
            1.0, angles, translate_range=[0.05 * side] * ndim, scale_range=[0.1] * ndim, padding_mode="border",
        )
    ]  # fmt: skip
    elastic: Any = (
        M.Rand2DElastic((side / 4, side / 4), (0, 0.05 * side), prob=1.0, padding_mode="border")
        if ndim == 2
        else M.Rand3DElastic((3, 4), (0, 0.05 * side), prob=1.0, padding_mode="border")
    )
    intensity = [
        M.RandShiftIntensity(0.2, prob=1.0), M.RandScaleIntensityFixedMean(1.0, 0.4), M.RandAdjustContrast(1.0, _GAMMA),
    ]  # fmt: skip
    noise, blur = (
        [M.RandGaussianNoise(1.0, 0.0, 0.05)],
        [M.RandGaussianSmooth(*[(0.1, 1.0)] * 3, 0.5)],
    )
    # As many windows as ours shuffles in one of its three rounds: half of the image.
    box, small = max(1, round(0.33 * side)), max(2, round(0.1 * side))
    made = {
        "crop": crop, "affine": affine, "elastic": [elastic], "intensity": intensity,
        "bias": [M.RandBiasField(3, (0.0, 0.3), prob=1.0)], "noise": noise, "blur": blur,
        "sharpen": [M.RandGaussianSharpen(prob=0.2)],
        "shuffle": [M.RandCoarseShuffle(side**ndim // small**ndim // 2, small, prob=0.5)],
        "erase": [M.RandCoarseDropout(1, box, prob=0.5)],
        "cutout": [M.RandCoarseDropout(1, box, fill_value=0.0, prob=0.5)],
        "ssl": [*crop, *affine, *intensity, *noise, *blur],
    }  # fmt: skip
    return {name: _each(M.Compose(parts)) for name, parts in made.items()}


def torchio(shape: tuple[int, ...]) -> dict[str, Transform]:
    """Sample by sample, an image as a volume of one slice; it has no crop that is resized, so no whole policy."""
    import torchio as T

    flat = len(shape) == 2
    degrees = (0, 0, 0, 0, -15, 15) if flat else (-10, 10, -10, 10, -15, 15)
    shift = 0.05 * shape[0]
    shifts = (-shift, shift, -shift, shift, *((0, 0) if flat else (-shift, shift)))
    bend = (shift, shift, 0 if flat else shift)
    made = {
        "affine": T.RandomAffine((0.9, 1.1), degrees, shifts, default_pad_value="minimum"),
        "elastic": T.RandomElasticDeformation(7, bend, 2),
        "intensity": T.RandomGamma((-0.4, 0.4)),
        "bias": T.RandomBiasField(0.3, 3),
        "noise": T.RandomNoise(0.0, (0, 0.05)),
        "blur": T.RandomBlur((0.1, 1.0), p=0.5),
    }

    def as_volume(transform: Any) -> Callable[[Tensor], Tensor]:
        return (lambda one: transform(one[..., None])[..., 0]) if flat else transform

    return {name: _each(as_volume(transform)) for name, transform in made.items()}


PEERS = {"kornia": kornia, "torchvision": torchvision, "monai": monai, "torchio": torchio}
