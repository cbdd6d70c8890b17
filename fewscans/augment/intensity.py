"""Intensities of a view, [0, 1]: window, contrast, gamma, bias field, blur, sharpening, in a scanner's order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fewscans.augment.grid import smooth_upsample
from fewscans.augment.noise import normals

if TYPE_CHECKING:
    from fewscans.augment.parameters import Parameters

# Nodes of the bias field along a side, as smooth as coils are.
_BIAS_NODES = 4
# Blur that unsharp masking takes away, as a share of the side.
_SHARPEN_SD = 1 / 64


def change(x: Tensor, p: Parameters) -> Tensor:
    """Intensities of `x` [B, C, *S] changed in place, as far as `p` says."""
    column = (-1, *([1] * (x.ndim - 1)))
    if p.window is not None:
        low, width = p.window[:, 0].view(column), (p.window[:, 1] - p.window[:, 0]).view(column)
        x.sub_(low).div_(width)
    if p.contrast is not None and p.brightness is not None:
        mean = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        contrast = p.contrast.view(column)
        x.mul_(contrast).add_(mean * (1 - contrast) + p.brightness.view(column))
    if p.gamma is not None:
        # exp(g log x) is a third of the cost of pow on CPU; the floor is far below a grey level.
        x.clamp_(1e-6, 1).log_().mul_(p.gamma.view(column)).exp_()
    if p.bias is not None and p.bias_start is not None:
        x.mul_(bias_field(p.bias_start, p.bias, x.shape[2:]))
    if p.blur_sd is not None:
        some = torch.nonzero(p.blur_sd > 0)[:, 0]
        if len(some):
            x[some] = blur(x[some], p.blur_sd[some])
    if p.sharpen is not None:
        some = torch.nonzero(p.sharpen > 0)[:, 0]
        if len(some):
            x[some] = sharpen(x[some], p.sharpen[some])
    return x


def bias_field(start: Tensor, largest: Tensor, shape: torch.Size) -> Tensor:
    """[B, 1, *S]: a smooth factor with |log| at most `largest` [B]."""
    ndim = len(shape)
    nodes = normals(start, _BIAS_NODES**ndim).view(len(start), 1, *([_BIAS_NODES] * ndim))
    nodes = nodes.clamp(-2.5, 2.5) / 2.5 * largest.view(-1, *([1] * (ndim + 1)))
    return smooth_upsample(nodes, shape).exp_()


def blur(x: Tensor, sd: Tensor) -> Tensor:
    """Gaussian blur of `x` [B, C, *S] with a standard deviation `sd` [B] (share of the side) for each sample.

    As a product with a banded matrix along each axis: at small sizes faster than B separate convolutions.
    """
    matrices = {n: _blur_matrix(n, sd)[:, None] for n in set(x.shape[2:])}
    *deep, down, across = (matrices[n] for n in x.shape[2:])
    slices = (len(sd), *[1] * len(deep))
    down, across = (m.view(*slices, 1, *m.shape[-2:]) for m in (down, across))
    x = torch.matmul(torch.matmul(down, x), across.transpose(-1, -2))
    for kernel in deep:  # of volumes
        x = torch.matmul(kernel, x.flatten(3)).view_as(x)
    return x


def _blur_matrix(n: int, sd: Tensor) -> Tensor:
    """[B, n, n], rows sum to 1: at the border the kernel is cut off and made whole again."""
    distance = torch.arange(n, device=sd.device, dtype=torch.float32)
    squared = (distance[:, None] - distance[None, :]).square()
    exponent = squared / (2 * (sd * n).clamp(min=1e-3).square()).view(-1, 1, 1)
    # The cut at exp(-30) is below float's precision; without it denormal numbers make the products 20 times slower.
    kernel = torch.exp(-exponent.clamp_(max=30))
    return kernel / kernel.sum(dim=-1, keepdim=True)


def sharpen(x: Tensor, amount: Tensor) -> Tensor:
    """Unsharp masking: x + amount (x - blurred x), `amount` [B]."""
    soft = blur(x, torch.full_like(amount, _SHARPEN_SD))
    return torch.lerp(x, soft, -amount.view(-1, *([1] * (x.ndim - 1))))
