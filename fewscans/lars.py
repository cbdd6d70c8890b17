"""LARS (You et al. 2017): SGD with momentum whose step of a layer is a share of the layer's own weights.

"Large Batch Training of Convolutional Networks", arXiv 1708.03888, in the form that SimCLR uses (Chen et al. 2020,
arXiv 2002.05709, section 2.2 and its code): weight decay joins the gradient before the norms are taken, and biases and
norms are neither decayed nor adapted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

# You et al. 2017, section 5, eta.
TRUST = 0.001


class LARS(Optimizer):
    """Momentum SGD with layer-wise adaptive rates, for parameters w with gradients dw.

    g = dw + weight_decay * w; rate = trust * |w| / |g|, 1 where either is zero; v = momentum * v + lr * rate * g;
    w = w - v (algorithm 1; the learning rate is within v). Groups with ``decayed: False`` have rate 1.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = TRUST,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(groups, {**defaults, "decayed": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have gradients; no `closure` is taken."""
        if closure is not None:
            raise ValueError("LARS takes no closure")
        for group in self.param_groups:
            # A few kernels over all tensors, not some for each: see `optim.make_optimizer`.
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            g = [p.grad for p in weights]
            if group["weight_decay"]:
                g = torch._foreach_add(g, weights, alpha=group["weight_decay"])
            for p in weights:
                if not self.state[p]:
                    self.state[p]["v"] = torch.zeros_like(p)
            v = [self.state[p]["v"] for p in weights]
            torch._foreach_mul_(v, group["momentum"])
            if group["decayed"]:
                sizes = torch._foreach_norm(weights), torch._foreach_norm(g)
                rates = [_rate(a, b, group["trust"]) for a, b in zip(*sizes, strict=True)]
                g = torch._foreach_mul(g, rates)
            torch._foreach_add_(v, g, alpha=group["lr"])
            torch._foreach_sub_(weights, v)


def _rate(weight: torch.Tensor, gradient: torch.Tensor, trust: float) -> torch.Tensor:
    """Trust ratio of two norms; 1 where a layer or its gradient is zero."""
    return torch.where((weight > 0) & (gradient > 0), trust * weight / gradient, 1.0)
