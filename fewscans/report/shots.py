"""Small PNG pictures of converted scans, as text that a page holds."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 144  # pixels of the longer side
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
ENDS = (0.5, 99.5)  # percentiles shown as black and white


def shot(pixels: npt.NDArray[np.float32]) -> str:
    """``data:`` address of a gray PNG of [C, (D,) H, W]; of a volume the middle slice."""
    if pixels.ndim == 4:
        pixels = pixels[:, pixels.shape[1] // 2]
    gray = np.tensordot(LUMA, pixels, axes=1) if len(pixels) == 3 else pixels.mean(axis=0)
    low, high = np.percentile(gray, ENDS)
    if high <= low:  # nearly one value: show what there is
        low, high = float(gray.min()), float(gray.max())
    scaled = (gray - low) / (high - low) if high > low else np.full(gray.shape, 0.5)
    image = Image.fromarray((scaled.clip(0, 1) * 255).round().astype(np.uint8))
    longest = max(image.size)
    if longest > SIDE:
        size = [max(1, round(side * SIDE / longest)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.BOX)
    kept = io.BytesIO()
    image.save(kept, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode('ascii')}"
