"""What a method was shown and what it made of it, on a few training scans, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewscans import keyed
from fewscans.methods.base import Batch, Method
from fewscans.resident import Resident

VIEWS, RECONSTRUCTIONS = "views.npz", "reconstructions.npz"
N_SHOWN = 6


def write_pictures(folder: Path, method: Method, resident: Resident, seed_key: int) -> None:
    """Views and reconstructions of a few training scans, as uint8; no reconstructions without a mask."""
    index = keyed.permutation(seed_key, 0, resident.keys)[:N_SHOWN]
    scans = np.array([resident.scans[i] for i in index])
    x, keys = resident.batch(index), resident.keys[index]
    n_views = method.settings.views
    # A method with one view shows those of two epochs.
    places = [(0, view) for view in range(n_views)] if n_views > 1 else [(0, 0), (1, 0)]
    views = [
        Batch(x, keys, epoch, seed_key).augmented(view, method.policy) for epoch, view in places
    ]
    np.savez(
        folder / VIEWS,
        scan=scans,
        original=_as_uint8(x),
        views=np.stack([_as_uint8(v) for v in views], axis=1),
    )
    was_training = method.training
    method.eval()
    with torch.inference_mode():
        made = method.pictures(Batch(x, keys, 0, seed_key))
    method.train(was_training)
    none = _as_uint8(x[:0])
    names = ("original", "masked", "reconstructed")
    arrays: dict[str, Any] = {
        name: none if made is None else _as_uint8(made[name]) for name in names
    }
    np.savez(folder / RECONSTRUCTIONS, scan=scans if made is not None else scans[:0], **arrays)


def _as_uint8(x: torch.Tensor) -> np.ndarray:
    """[B, C, H, W]; of a volume its middle slice."""
    if x.ndim == 5:
        x = x[:, :, x.shape[2] // 2]
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
