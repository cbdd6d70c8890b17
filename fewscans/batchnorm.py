"""Batch norm over the batch of all ranks, on CPU and GPU alike (torch's own SyncBatchNorm works on GPUs alone)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewscans.compat import ensure_torchvision
from fewscans.distributed import told
from fewscans.errors import UserError

ensure_torchvision()

from timm.layers import BatchNormAct2d  # noqa: E402  (torchvision must be made importable first)


def make_global(module: nn.Module) -> nn.Module:
    """`module` with batch norms that, while training, take their statistics from the batch of all ranks.

    In place: parameters, buffers and their names stay, so the trained encoder is still plain timm.

    Raises
    ------
    UserError
        It has batch norms of an unknown kind.
    """
    for child in module.modules():
        kind = type(child)
        if not isinstance(child, nn.modules.batchnorm._BatchNorm) or kind in _GLOBAL.values():
            continue
        if kind not in _GLOBAL:
            raise UserError(
                f"this backbone has batch norms of a kind ({kind.__name__}) that ranks cannot share. Set `ranks: 1`."
            )
        child.__class__ = _GLOBAL[kind]
    return module


class _GlobalNorm(torch.autograd.Function):
    """Batch norm over the rows of all ranks (Ioffe & Szegedy 2015); also its mean and variance, for running ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        dims, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        n, mean = y.numel() // y.shape[1], y.mean(dims)
        squares = (y - mean.view(shape)).square().sum(dims)
        # Of the parts' means and sums of squares, and not by E[x^2] - E[x]^2, which cancels.
        parts = [y.new_empty(2, y.shape[1]) for _ in range(dist.get_world_size())]
        with told():
            dist.all_gather(parts, torch.stack([mean, squares]))
        means, sums = torch.stack(parts).unbind(1)
        total = n * len(parts)
        mean = means.mean(0)
        var = (sums.sum(0) + n * (means - mean).square().sum(0)) / total
        scale = (var + eps).rsqrt()
        xhat = (y - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(x, mean, scale, weight)
        ctx.dims, ctx.shape, ctx.total = dims, shape, total
        out = xhat if weight is None else xhat * weight.view(shape)
        out = out if bias is None else out + bias.view(shape)
        ctx.mark_non_differentiable(mean, var)
        return out.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, mean, scale, weight = ctx.saved_tensors
        dims, shape = ctx.dims, ctx.shape
        dy = gradients[0].to(mean.dtype)
        xhat = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        # Those of weight and bias are of our rows alone: they are averaged with all others later.
        d_bias, d_weight = dy.sum(dims), (dy * xhat).sum(dims)
        sums = torch.stack([d_bias, d_weight])
        with told():
            dist.all_reduce(sums)
        a, b = (sums / ctx.total).unbind(0)
        dx = (dy - a.view(shape) - xhat * b.view(shape)) * scale.view(shape)
        if weight is None:
            return dx.to(x.dtype), None, None, None
        return (dx * weight.view(shape)).to(x.dtype), d_weight, d_bias, None


def _normalised(self: Any, x: Tensor) -> Tensor:
    """What the batch norm `self` gives, with running statistics as torch keeps them (the variance unbiased)."""
    out, mean, var = _GlobalNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
    if self.track_running_stats:
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            new = self.momentum
            if new is None:  # cumulative average
                new = 1 / float(self.num_batches_tracked)
            n = x.numel() // x.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), new)
            self.running_var.lerp_((var * (n / (n - 1))).to(self.running_var.dtype), new)
    return out


class _Global:
    """Before torch's batch norms: while training with other ranks, the statistics are those of all."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)  # type: ignore[misc, no-any-return]
        out = _normalised(self, x)
        return self.act(self.drop(out)) if isinstance(self, BatchNormAct2d) else out  # type: ignore[no-any-return]


_GLOBAL = {
    kind: type(f"Global{kind.__name__}", (_Global, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
}
