"""Pixels to write as scans of every kind, and ways to look at what `read` makes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from fewscans.convert import Unreadable, read

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
SMALL = settings(max_examples=25, deadline=None)


def reason(path: Path) -> str:
    """What `read` says of a file that it does not read."""
    with pytest.raises(Unreadable) as caught:
        read(path)
    return f"{caught.value.status}: {caught.value.reason}"


def save(path: Path, array: np.ndarray, **options) -> Path:
    """Write an image by Pillow."""
    Image.fromarray(array).save(path, **options)
    return path
