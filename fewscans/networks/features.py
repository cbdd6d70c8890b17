"""What a frozen encoder makes of scans, and the statistics that its batch norms need for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewscans.config.backbones import slices_of
from fewscans.networks.parts import part_side
from fewscans.networks.slices import SliceWise
from fewscans.outofmemory import in_batches
from fewscans.resident import Resident
from fewscans.shape import starts


def embedding_dim(model: nn.Module) -> int:
    """Length E of an embedding."""
    known = getattr(model, "fewscans_width", None)
    return int(known or getattr(model, "head_hidden_size", None) or model.num_features)


def at_once(model: nn.Module, resident: Resident, batch: int) -> int:
    """Scans to read for a forward pass where `batch` would fit that are seen whole: fewer where slices or parts are."""
    _, *axes = resident.shape
    slices = slices_of(axes[0]) if isinstance(model, SliceWise) else 1
    side = part_side(model) or axes[0]
    return max(1, batch // (slices * len(starts(axes[0], side)) ** len(axes)))


def embed(
    model: nn.Module, resident: Resident, index: Any, batch: int = 256
) -> NDArray[np.float32]:
    """Embeddings [n, E] of the scans at `index`, unaugmented, in eval mode; the model's mode is put back."""
    index = np.asarray(index, dtype=np.int64)
    was_training = model.training
    batch = at_once(model, resident, batch)
    model.eval()
    with torch.inference_mode():
        made = in_batches(
            lambda some: model(resident.batch(some)).float().cpu().numpy(), index, batch
        )
    model.train(was_training)
    none = np.empty((0, embedding_dim(model)), dtype=np.float32)
    return np.concatenate([none, *made])


def set_batchnorm_statistics(
    model: nn.Module, resident: Resident, index: Any, batch: int = 256
) -> None:
    """Set running means and variances of batch norms to the average over the scans at `index`. No gradients.

    An untrained network has means 0 and variances 1, which fit no layer: frozen features would be judged by a
    mistake. Networks without batch norm are left as they are.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    index = np.asarray(index, dtype=np.int64)
    batch = at_once(model, resident, batch)
    if not norms or not len(index):
        return
    was_training = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over the batches
        norm.train()
    # Equal batches, since each counts alike; a single scan would have no variance in 1 x 1 maps.
    parts = np.array_split(index, max(1, round(len(index) / batch)))
    with torch.no_grad():
        for part in parts:
            model(resident.batch(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in was_training.items():
        module.training = mode
