"""What a method was shown and what it made of it, on a few training scans, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewscans import augment, keyed
from fewscans.methods.base import Batch, Method
from fewscans.resident import Resident

VIEWS, RECONSTRUCTIONS = "views.npz", "reconstructions.npz"
N_SHOWN = 6


def write_pictures(folder: Path, method: Method, resident: Resident, seed_key: int) -> None:
    """Views and reconstructions of a few training scans, as uint8; no reconstructions without a mask."""
    ndim = method.shape.ndim
    index = keyed.permutation(seed_key, 0, resident.keys)[:N_SHOWN]
    scans = np.array([resident.scans[i] for i in index])
    x, keys = resident.batch(index), resident.keys[index]
    x = augment.part(x, keys, seed_key=seed_key, epoch=0, side=method.shape.size)
    views = method.shown(Batch(x, keys, 0, seed_key))
    if views is None:
        n_views = method.settings.views
        # A method with one view shows those of two epochs.
        places = [(0, view) for view in range(n_views)] if n_views > 1 else [(0, 0), (1, 0)]
        views = torch.stack(
            [Batch(x, keys, epoch, seed_key).augmented(v, method.policy) for epoch, v in places], 1
        )
    np.savez(
        folder / VIEWS,
        scan=scans,
        original=_as_uint8(x, ndim),
        views=_as_uint8(views, ndim),
    )
    was_training = method.training
    method.eval()
    with torch.inference_mode():
        made = method.pictures(Batch(x, keys, 0, seed_key))
    method.train(was_training)
    none = _as_uint8(x[:0], ndim)
    names = ("original", "masked", "reconstructed")
    arrays: dict[str, Any] = {
        name: none if made is None else _as_uint8(made[name], ndim) for name in names
    }
    np.savez(folder / RECONSTRUCTIONS, scan=scans if made is not None else scans[:0], **arrays)


def _as_uint8(x: torch.Tensor, ndim: int) -> np.ndarray:
    """[..., H, W] of images, or of the middle slices of volumes [..., D, H, W]."""
    if ndim == 3:
        x = x[..., x.shape[-3] // 2, :, :]
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
