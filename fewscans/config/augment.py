"""How scans are changed while they are trained on: what kind of image they are, and ranges in place of the policy's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from fewscans.config.base import Fraction, Settings

Modality = Literal["any", "ct", "mr", "xray", "ultrasound", "photograph"]
Amount = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
S = TypeVar("S", bound=Settings)


class AugmentSettings(Settings):
    """Ranges in place of the policy's, each as it is given: `strength` does not change them. 0 switches a family off.

    Lengths are shares of the image's side.
    """

    crop_area: tuple[Share, Share] | None = None
    """Least and largest area (in 3D: volume) of the crop, as a share of the image."""
    crop_aspect: float | None = Field(default=None, ge=1, le=10)
    """Ratio of the crop's sides lies between 1 / this and this."""
    horizontal_flip: Fraction | None = None
    """Probability of a mirror image along the last axis; 0 where left and right are not alike."""
    vertical_flip: Fraction | None = None
    """Probability along the last axis but one."""
    depth_flip: Fraction | None = None
    """Probability along the first axis of volumes."""
    rotation_deg: float | None = Field(default=None, ge=0, le=180)
    """Largest angle in the plane, either way."""
    tilt_deg: float | None = Field(default=None, ge=0, le=180)
    """Largest angle out of the plane, in volumes."""
    scale: Amount | None = None
    """Largest relative change of size."""
    shear: Amount | None = None
    """Largest shift of an axis along another, per length."""
    translation: Amount | None = None
    """Largest shift."""
    elastic: Amount | None = None
    """Largest displacement of a smooth field."""
    brightness: Amount | None = None
    """Largest shift of intensity."""
    contrast: Amount | None = None
    """Largest relative change of contrast."""
    window: Amount | None = None
    """Largest shift of either end of the intensity window, as a share of its width (CT: other HU windows)."""
    gamma: float | None = Field(default=None, ge=0, le=3)
    """Largest |log| of the exponent."""
    bias_field: float | None = Field(default=None, ge=0, le=3)
    """Largest |log| of a smooth factor (MR coils, ultrasound's depth gain)."""
    noise_sd: Amount | None = None
    """Largest standard deviation of noise."""
    blur_sd: Amount | None = None
    """Largest standard deviation of blur."""
    blur_share: Fraction | None = None
    """Probability of blur."""
    sharpen: float | None = Field(default=None, ge=0, le=10)
    """Largest amount of unsharp masking."""
    sharpen_share: Fraction | None = None
    """Probability of it."""
    shuffle_share: Fraction | None = None
    """Probability that pixels are shuffled within small windows."""
    erase_share: Fraction | None = None
    """Probability that a box is erased."""
    erase_area: tuple[Share, Share] | None = None
    """Least and largest area of the box, as a share of the image."""
    erase_with: Literal["mean", "noise"] | None = None
    """What stands in the box: the image's mean (cutout) or noise (random erasing)."""

    @model_validator(mode="after")
    def _in_order(self) -> AugmentSettings:
        for name in ("crop_area", "erase_area"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(
                    f"{name}: {list(pair)} has its largest first; write {sorted(pair)}"
                )
        return self

    @property
    def given(self) -> dict[str, Any]:
        """What stands in place of the policy's."""
        return {name: value for name, value in self if value is not None}


def of_modality(settings: S, modality: str) -> S:
    """`settings` with the data set's modality, where they have such a setting and leave it open."""
    if getattr(settings, "modality", modality) is not None:
        return settings
    return settings.model_copy(update={"modality": modality})
