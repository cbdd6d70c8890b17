"""Methods with a task made from the scan itself: which way up, in which order, where, which one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.encoders.base import PretrainSettings


class Rotation(PretrainSettings):
    """Rotation: tell by which right angle a scan was turned (Gidaris et al. 2018; in 3D Taleb et al. 2020)."""

    method: Literal["rotation"] = "rotation"
    title: ClassVar[str] = "rotation"
    module: ClassVar[str] = "fewscans.methods.rotation"
    views: ClassVar[int] = 4

    def images(self, ndim: int) -> float:
        """Three turns in each plane, and none."""
        return 4 if ndim == 2 else 10


class PatchSettings(PretrainSettings):
    """Methods on patches of one scan, which have together fewer pixels than the scan."""

    head_hidden: int = Field(default=512, ge=8, le=65_536)
    """Width of the head's hidden layer, which sees the embeddings of several patches at once (the authors': 4,096)."""


class Jigsaw(PatchSettings):
    """Jigsaw: tell by which permutation the patches of a scan were mixed (Noroozi & Favaro 2016)."""

    method: Literal["jigsaw"] = "jigsaw"
    title: ClassVar[str] = "jigsaw"
    module: ClassVar[str] = "fewscans.methods.jigsaw"
    grid: Literal[2, 3] | None = None
    """Patches along an axis; without it 3 where each has 24 pixels at least, else 2."""
    n_permutations: int | None = Field(default=None, ge=2, le=702)
    """How many there are to tell apart; without it 100, or as many as the grid has any two of which agree in one place
    at most: 12 of 2 x 2 patches, 56 of 2 x 2 x 2, 72 of 3 x 3, 702 of 3 x 3 x 3."""
    orders: int = Field(default=4, ge=1, le=64)
    """Permutations of each scan in a step: their patches are encoded once (Kolesnikov et al. 2019, section 3.2)."""


class RelativeLocation(PatchSettings):
    """Relative location: tell on which side of a scan's middle patch another one lies (Doersch et al. 2015)."""

    method: Literal["relative-location"] = "relative-location"
    title: ClassVar[str] = "relative location"
    module: ClassVar[str] = "fewscans.methods.relative_location"


class Exemplar(PretrainSettings):
    """Exemplar: a scan's views are nearer to each other than to any other scan's (Dosovitskiy et al. 2014)."""

    method: Literal["exemplar"] = "exemplar"
    title: ClassVar[str] = "exemplar"
    module: ClassVar[str] = "fewscans.methods.exemplar"
    views: ClassVar[int] = 4
    copies: int = Field(default=4, ge=2, le=32)
    """Views of each scan in a step (the paper has 8)."""
    margin: float = Field(default=0.5, gt=0, le=4)
    """By how much the squared distance to another scan has to be greater (the authors': 0.5)."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Length of the vectors that are compared (the authors': 1,000)."""

    def images(self, ndim: int) -> float:
        """All views have full size."""
        return self.copies
