"""What a scan of a store looks like: channels, and one side along each of two or three axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_AXES = {2: "channels x height x width", 3: "channels x depth x height x width"}


@dataclass(frozen=True)
class Shape:
    """Of every scan of a store; all axes of space have one length."""

    size: int
    """Pixels (voxels) along each axis."""
    channels: int = 1
    ndim: int = 2
    """Axes of space: 2, or 3 for volumes."""

    @property
    def axes(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return (self.size,) * self.ndim

    @property
    def full(self) -> tuple[int, ...]:
        """(C, H, W) or (C, D, H, W)."""
        return (self.channels, *self.axes)

    @property
    def pixels(self) -> int:
        """Numbers in a scan."""
        return self.channels * self.size**self.ndim

    def facts(self) -> dict[str, Any]:
        """As it is written to files."""
        return {"size": self.size, "channels": self.channels, "ndim": self.ndim}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Shape:
        """From a file; one without `ndim` is of images."""
        return cls(int(facts["size"]), int(facts["channels"]), int(facts.get("ndim", 2)))

    def __str__(self) -> str:
        return " x ".join(map(str, self.full))

    @property
    def axis_names(self) -> str:
        """What the numbers of its text are."""
        return _AXES[self.ndim]


def starts(size: int, side: int) -> list[int]:
    """Where parts of `side` begin along an axis of `size`: from end to end, a quarter overlapping at least.

    A quarter is what MONAI's sliding windows overlap where nothing is said.
    """
    n = 1 if side >= size else 1 + -(-4 * (size - side) // (3 * side))
    return [round(i * (size - side) / max(1, n - 1)) for i in range(n)]
