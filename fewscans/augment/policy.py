"""Ranges that a view's parameters are drawn from, by kind of training and by modality, with one dial of strength.

The families are those of Shorten & Khoshgoftaar 2019 ("A survey on Image Data Augmentation for Deep Learning",
J Big Data 6:60, sections on geometric, photometric, kernel and erasing transformations). A modality takes away what
its images never show: a chest x-ray has no mirror image, since the heart would lie on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fewscans.config.augment import Modality

Kind = Literal["ssl", "supervised", "mae", "upright", "placed"]


@dataclass(frozen=True)
class Policy:
    """Ranges of parameters. Lengths are shares of the image's side, angles degrees; 0 switches a family off."""

    crop_area: tuple[float, float] = (0.35, 1.0)
    """Area (in 3D: volume) of the crop, as a share of the image."""
    crop_aspect: float = 4 / 3
    """Ratio of the crop's sides lies between 1 / this and this."""
    horizontal_flip: float = 0.5
    """Probability of a flip along x, the last axis."""
    vertical_flip: float = 0.0
    """Probability along y; 0 since up and down are not alike in a body."""
    depth_flip: float = 0.0
    """Probability along z, in 3D."""
    rotation_deg: float = 0.0
    """Largest angle in the plane, either way."""
    tilt_deg: float = 0.0
    """Largest angle out of the plane, in 3D."""
    scale: float = 0.0
    """Largest relative change of size."""
    shear: float = 0.0
    """Largest shift of an axis along another, per length."""
    translation: float = 0.0
    """Largest shift."""
    elastic: float = 0.0
    """Largest displacement; of a smooth field with `ELASTIC_CELLS` cells along a side."""
    brightness: float = 0.0
    """Largest shift of intensity."""
    contrast: float = 0.0
    """Largest relative change of contrast."""
    window: float = 0.0
    """Largest shift of either end of the intensity window, as a share of its width (CT: other HU windows)."""
    gamma: float = 0.0
    """Largest |log| of the exponent."""
    bias_field: float = 0.0
    """Largest |log| of a smooth factor (MR coils, ultrasound's depth gain)."""
    noise_sd: float = 0.0
    """Largest standard deviation of Gaussian noise; uniform from 0."""
    blur_sd: float = 0.0
    """Largest standard deviation of Gaussian blur; uniform from a tenth of it."""
    blur_share: float = 0.5
    """Probability of blur (SimCLR, appendix A)."""
    sharpen: float = 0.0
    """Largest amount of unsharp masking."""
    sharpen_share: float = 0.2
    """Probability of it."""
    shuffle_share: float = 0.0
    """Probability of local shuffling (Zhou et al. 2020, Models Genesis)."""
    erase_share: float = 0.0
    """Probability that a box is erased (Zhong et al. 2017)."""
    erase_area: tuple[float, float] = (0.02, 0.2)
    """Area of the box, as a share of the image."""
    erase_with: Literal["mean", "noise"] = "noise"
    """What stands in the box: the image's mean (cutout: DeVries & Taylor 2017) or noise (random erasing)."""

    def cropped(self, low: float, high: float) -> Policy:
        """The same with crops of another area (volume), as a share of the image."""
        return replace(self, crop_area=(low, high))

    @property
    def moves(self) -> bool:
        """Whether places are changed by a crop, a flip or another affine map."""
        whole = self.crop_area == (1.0, 1.0) and self.crop_aspect == 1.0
        return not whole or any(getattr(self, name) > 0 for name in AFFINE)

    @property
    def changes_intensity(self) -> bool:
        """Whether anything but geometry is changed."""
        return any(getattr(self, name) > 0 for name in INTENSITIES)


AFFINE = (
    "horizontal_flip", "vertical_flip", "depth_flip", "rotation_deg", "tilt_deg", "scale", "shear", "translation",
)  # fmt: skip
INTENSITIES = (
    "brightness", "contrast", "window", "gamma", "bias_field", "noise_sd", "blur_sd", "sharpen", "shuffle_share",
    "erase_share",
)  # fmt: skip

# What a modality changes in any policy. `horizontal_flip` 0 where left and right are not alike and a mirror image would
# be another patient (situs inversus); `vertical_flip` and `depth_flip` where no direction is given.
_OF_MODALITY: dict[str, dict[str, Any]] = {
    "any": {},
    "ct": {},
    "mr": {},
    "xray": {"horizontal_flip": 0.0},
    "ultrasound": {},
    "photograph": {"vertical_flip": 0.5},
}
# What a modality adds to the strong and the mild policy at strength 1 (the mild one takes half).
_ADDED: dict[str, dict[str, float]] = {
    "any": {},
    "ct": {"window": 0.1},
    "mr": {"bias_field": 0.3},
    "xray": {"window": 0.1},
    "ultrasound": {"bias_field": 0.2},
    "photograph": {},
}

# What would turn a scan, put it upside down, or swap its sides.
_UPRIGHT: dict[str, Any] = {
    "rotation_deg": 0.0,
    "tilt_deg": 0.0,
    "vertical_flip": 0.0,
    "depth_flip": 0.0,
}
_TURNS_NOT: dict[str, dict[str, Any]] = {
    "upright": _UPRIGHT,
    "placed": {**_UPRIGHT, "horizontal_flip": 0.0},
}


def policy(
    strength: float = 1.0,
    kind: Kind = "ssl",
    modality: Modality = "any",
    given: Mapping[str, Any] | None = None,
) -> Policy:
    """Policy at a dial `strength` from 0 (crops and flips alone) over 1 (the policy as it is) to 2.

    ``ssl``: strong, for contrastive views; crops keep at least 35 % of the area (SimCLR: 8 % of a photograph), since a
    lesion must be likely to be in both. ``supervised``: milder. ``mae``: crops and flips at any strength, as the
    paper found best (He et al. 2022, table 1e): masking is the augmentation. ``upright``: crops, mirror images and
    intensities of the milder policy, nothing that turns a scan, for methods that ask which way up it is; a mirror image
    is as upright as the scan. ``placed``: no mirror images either, for methods that ask where its parts lie.

    `given` ranges stand in place of all that.
    """
    if modality not in get_args(Modality):
        raise ValueError(f"no modality '{modality}'")
    added: dict[str, Any] = {name: value * strength for name, value in _ADDED[modality].items()}
    if kind == "mae":
        made = Policy()
    elif kind in ("supervised", *_TURNS_NOT):
        halved = {name: value / 2 for name, value in added.items()}
        made = _supervised(strength, halved)
    elif kind == "ssl":
        made = _ssl(strength, added)
    else:
        raise ValueError(f"no policy '{kind}'")
    made = replace(made, **_OF_MODALITY[modality])
    return replace(replace(made, **_TURNS_NOT.get(kind, {})), **(given or {}))


def _supervised(strength: float, added: dict[str, Any]) -> Policy:
    return Policy(
        crop_area=(0.6, 1.0),
        crop_aspect=1.15,
        rotation_deg=10 * strength,
        tilt_deg=5 * strength,
        scale=0.1 * strength,
        translation=0.05 * strength,
        brightness=0.1 * strength,
        contrast=0.2 * strength,
        gamma=0.2 * strength,
        noise_sd=0.03 * strength,
        **added,
    )


def _ssl(strength: float, added: dict[str, Any]) -> Policy:
    return Policy(
        rotation_deg=15 * strength,
        tilt_deg=10 * strength,
        scale=0.1 * strength,
        translation=0.05 * strength,
        brightness=0.2 * strength,
        contrast=0.4 * strength,
        gamma=0.4 * strength,
        noise_sd=0.05 * strength,
        blur_sd=strength / 64,
        **added,
    )
