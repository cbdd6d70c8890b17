"""A convolutional network that computes from visible places alone, as sparse convolution would.

Tian et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling", arXiv
2301.03580, section 3.1: without it hidden places would be eaten up from layer to layer, and their zeros would bend the
statistics of all norms. Here layers stay dense: hidden places are set to zero before each, norms count visible ones.

Legend: B batch, C channels, S axes of space of the scan, s those of a map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

_POOLS = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


class Seen:
    """Which places of scans are visible, at the size of any map."""

    def __init__(self, visible: Tensor) -> None:
        """`visible`: bool [B, 1, *S]."""
        self.visible = visible
        self._at: dict[tuple[int, ...], Tensor] = {}

    def at(self, places: tuple[int, ...]) -> Tensor:
        """Bool [B, 1, *s]: a place of a map is visible where any pixel below it is."""
        if places not in self._at:
            pool = F.adaptive_max_pool2d if len(places) == 2 else F.adaptive_max_pool3d
            self._at[places] = pool(self.visible.float(), places) > 0
        return self._at[places]

    def only(self, x: Tensor) -> Tensor:
        """`x` [B, C, *s], zero where hidden."""
        return x * self.at(tuple(x.shape[2:])).to(x.dtype)


@contextlib.contextmanager
def seeing_only(
    module: nn.Module, seen: Seen, gather: Callable[[Tensor], Tensor] = lambda x: x
) -> Iterator[None]:
    """Within it convolutions, poolings, batch, instance and group norms of `module` see visible places alone.

    Parameters
    ----------
    gather
        Rows of all processes that share a batch, for the statistics of batch norms.
    """
    hooks, norms = [], []
    try:
        for layer in module.modules():
            if isinstance(layer, (_BatchNorm, _InstanceNorm, nn.GroupNorm)):
                layer.forward = partial(_normalised, layer, seen, gather)
                norms.append(layer)
            elif isinstance(layer, (_ConvNd, *_POOLS)):
                hooks.append(layer.register_forward_pre_hook(lambda _, x: (seen.only(x[0]),)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            del norm.forward


def _normalised(norm: Any, seen: Seen, gather: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `norm` makes of the visible places of `x` [B, C, *s]; hidden ones are zero."""
    mask = seen.at(tuple(x.shape[2:]))
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    weight = mask.to(y.dtype)
    if isinstance(norm, _BatchNorm):
        mean, var = _batch_moments(norm, y, weight, gather)
    else:
        groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else y.shape[1]
        mean, var = _scan_moments(y, weight, groups)
    out = (y - mean) * (var + norm.eps).rsqrt()
    if norm.weight is not None:
        column = [1, -1, *[1] * (x.ndim - 2)]
        out = out * norm.weight.view(column) + norm.bias.view(column)
    if hasattr(norm, "act"):  # timm's norms have their activation within
        out = norm.act(norm.drop(out))
    return (out * weight).to(x.dtype)


def _batch_moments(
    norm: Any, y: Tensor, weight: Tensor, gather: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and variance [1, C, ...] over visible places of all scans; running ones where the norm is not trained."""
    column = [1, -1, *[1] * (y.ndim - 2)]
    if not norm.training and norm.track_running_stats:
        return norm.running_mean.view(column), norm.running_var.view(column)
    dims = [0, *range(2, y.ndim)]
    n = gather(weight.sum()[None]).sum()
    mean = gather((y * weight).sum(dims)[None]).sum(0) / n
    centred = (y - mean.view(column)) * weight
    var = gather(centred.square().sum(dims)[None]).sum(0) / n
    if norm.training and norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            new = norm.momentum
            new = 1 / float(norm.num_batches_tracked) if new is None else new
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), new)
            unbiased = var * (n / (n - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), new)
    return mean.view(column), var.view(column)


def _scan_moments(y: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance [B, C, ...] over the visible places of each scan and group of channels."""
    b, c = y.shape[:2]
    split = y.reshape(b, groups, c // groups, -1)
    places = weight.reshape(b, 1, 1, -1)
    n = (places.sum(dim=3, keepdim=True) * (c // groups)).clamp(min=1)
    mean = (split * places).sum(dim=(2, 3), keepdim=True) / n
    var = ((split - mean) * places).square().sum(dim=(2, 3), keepdim=True) / n
    shape = (b, c, *[1] * (y.ndim - 2))
    mean, var = (one.expand(-1, -1, c // groups, -1).reshape(shape) for one in (mean, var))
    return mean, var
