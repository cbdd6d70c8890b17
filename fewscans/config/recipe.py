"""Recipes: the steps from a converted scan to its place in a store."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fewscans.config.base import Fraction, Settings
from fewscans.shape import Shape, starts

# Width and level in HU, as "Windowing (CT)" of Radiopaedia.org lists them: lungs 1500 and -600, soft tissues (abdomen)
# 400 and 50, brain 80 and 40, bone (spine) 1800 and 400. Here as low and high.
WINDOWS_HU = {
    "lung": (-1350.0, 150.0),
    "soft-tissue": (-150.0, 250.0),
    "brain": (0.0, 80.0),
    "bone": (-500.0, 1300.0),
}
WindowName = Literal["lung", "soft-tissue", "brain", "bone"]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
Percent = Annotated[float, Field(ge=0, le=100)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class RecipeSettings(Settings):
    """Geometry and intensity that make one store."""

    size: int = Field(default=64, ge=16, le=2048)
    """Side of the square image in pixels, or of the cube in voxels."""
    crop: int | None = Field(default=None, ge=8, le=1024)
    """Side of the part (square or cube) that networks are given at once, at the resolution of `size`, where scans are
    too large for them: of each scan another part in each epoch of a training; embeddings and predictions are means over
    parts that overlap by about a quarter or more. Without it, whole scans."""
    ndim: Literal[2, 3] = 2
    """Axes of space: 2 for images, 3 for volumes."""
    channels: Literal[1, 3] = 1
    """Gray, or three channels (gray sources are repeated)."""
    normalise: Literal["percentile", "window", "minmax", "zscore", "nyul"] = "percentile"
    """How intensities reach [0, 1] (`zscore`: mean 0.5, standard deviation 1/6, clipped; `nyul`: histograms
    standardised by landmarks that are means over the training scans, so that each fold has a store of its own)."""
    window_hu: tuple[float, float] = (-1000.0, 400.0)
    """Low and high of `window`, in HU or stored units."""
    windows: Annotated[
        list[WindowName] | None, BeforeValidator(_as_list, json_schema_input_type=list[WindowName] | WindowName | None)
    ] = Field(default=None, min_length=1, max_length=3)  # fmt: skip
    """CT windows by name, in place of `window_hu`: one, or one for each of three channels. In HU: `lung` -1350 to 150,
    `soft-tissue` -150 to 250, `brain` 0 to 80, `bone` -500 to 1300. They imply `normalise: window`."""
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)
    """Low and high of `percentile`, per scan."""
    within: Literal["scan", "foreground"] = "scan"
    """Where `percentile`, `minmax` and `zscore` measure: the whole scan or its foreground (`nyul`: the foreground)."""
    fit: Literal["pad", "stretch", "crop"] = "pad"
    """Reach the square (cube) by padding the shorter sides, stretching them, or cropping the longer ones."""
    spacing_mm: Millimetres | list[Millimetres] | None = None
    """Resample to this spacing, or one for each axis ([depth,] height, width). The middle is then cropped or padded to
    `size`: what is longer is cut off. Scans without spacing are refused. Without it, scans are scaled to `size`."""
    foreground: bool | Literal["mask"] = False
    """Crop to the foreground first: the largest connected part above Otsu's threshold (bright on dark), or what the
    scan's `mask` labels."""
    margin: Fraction = 0.05
    """Around the foreground's box, as a share of its sides."""
    n4: int | None = Field(default=None, ge=1, le=16)
    """Correct the bias field of MR (N4), estimated on scans shrunk by this factor (4 is usual)."""
    clahe: float | None = Field(default=None, gt=0, le=1)
    """Equalise histograms locally (CLAHE) up to this contrast limit (0.01 is usual)."""

    @property
    def shape(self) -> Shape:
        """Of a scan in the store."""
        return Shape(self.size, self.channels, self.ndim)

    @property
    def seen(self) -> Shape:
        """Of what a network is given at once: a scan, or a part of one."""
        return Shape(self.crop or self.size, self.channels, self.ndim)

    @property
    def parts(self) -> int:
        """Parts that a scan is looked at in."""
        return len(starts(self.size, self.seen.size)) ** self.ndim

    @property
    def pitch_mm(self) -> tuple[float, ...] | None:
        """The spacing asked for, for each axis; None where scans are scaled to `size`."""
        if isinstance(self.spacing_mm, list):
            return tuple(self.spacing_mm)
        return None if self.spacing_mm is None else (self.spacing_mm,) * self.ndim

    @property
    def is_fitted(self) -> bool:
        """Whether a scan's place in the store depends on other scans: only training scans may be among them."""
        return self.normalise == "nyul"

    @property
    def in_foreground(self) -> bool:
        """Whether intensities are measured in the foreground alone."""
        return self.within == "foreground" or self.is_fitted

    @property
    def bounds_hu(self) -> tuple[tuple[float, float], ...]:
        """Low and high of each window of `window`: one, or one for each channel."""
        return tuple(WINDOWS_HU[name] for name in self.windows or ()) or (self.window_hu,)

    @field_validator("crop")
    @classmethod
    def _below_size(cls, crop: int | None, info: ValidationInfo) -> int | None:
        size = info.data.get("size")  # not there where it is wrong itself
        if crop is not None and size is not None and crop >= size:
            raise PydanticCustomError(
                "crop",
                "must be less than `size` ({size}); leave it out for whole scans",
                {"size": size},
            )
        return crop

    @field_validator("windows")
    @classmethod
    def _one_per_channel(
        cls, windows: list[WindowName] | None, info: ValidationInfo
    ) -> list[WindowName] | None:
        channels = info.data.get("channels")
        if windows is not None and info.data.get("normalise", "window") != "window":
            raise PydanticCustomError(
                "windows",
                "are of `normalise: window`; say that in the recipe, or leave `windows` out",
            )
        if windows is not None and channels is not None and len(windows) not in (1, channels):
            raise PydanticCustomError(
                "windows",
                "{n} windows and {channels} channel(s): give one window, or three with `channels: 3`",
                {"n": len(windows), "channels": channels},
            )
        return windows

    @field_validator("within")
    @classmethod
    def _of_foreground(cls, within: str, info: ValidationInfo) -> str:
        if within == "scan" and info.data.get("normalise") == "nyul":
            raise PydanticCustomError(
                "within", "`nyul` measures in the foreground; leave `within` out"
            )
        return within

    @field_validator("spacing_mm")
    @classmethod
    def _one_per_axis(
        cls, spacing: float | list[float] | None, info: ValidationInfo
    ) -> float | list[float] | None:
        ndim = info.data.get("ndim")
        if isinstance(spacing, list) and ndim is not None and len(spacing) != ndim:
            raise PydanticCustomError(
                "spacing_mm",
                "{n} numbers for {ndim} axes: give one for all, or one for each",
                {"n": len(spacing), "ndim": ndim},
            )
        if spacing is not None and info.data.get("fit") == "stretch":
            raise PydanticCustomError(
                "spacing_mm", "`fit: stretch` would change it; leave `fit` out, or `spacing_mm`"
            )
        return spacing

    @model_validator(mode="before")
    @classmethod
    def _by_window(cls, given: Any) -> Any:
        """Who names windows need not say that scans are normalised by them."""
        if isinstance(given, dict) and given.get("windows") and "normalise" not in given:
            return {**given, "normalise": "window"}
        return given

    @model_serializer(mode="wrap")
    def _without_steps_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A step that is left out is not told: stores and digests are those of before there was such a step."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if key not in LATER or getattr(self, key) != fields[key].default
        }


LATER = ("windows", "within", "spacing_mm", "foreground", "margin", "n4", "clahe")
