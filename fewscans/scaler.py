"""fp16: losses are scaled so that small gradients do not vanish, and steps whose gradients overflow are left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Scaler:
    """torch's `GradScaler`, and how many steps it has left out (Micikevicius et al. 2018, arXiv 1710.03740, 3.2)."""

    def __init__(self, device: torch.device) -> None:
        self.inner = torch.amp.GradScaler(device.type)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        """On the device: counting waits for nothing."""

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        clip_grad_norm: float | None,
    ) -> None:
        """Unscale, clip, and move the weights where all gradients are finite; then adapt the scale."""
        parameters = list(parameters)
        self.inner.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_grad_norm, norm)
        self.skipped += ~torch.isfinite(norm)
        self.inner.step(optimizer)
        self.inner.update()

    @property
    def exhausted(self) -> bool:
        """Whether gradients overflow even if they are not scaled up: what would be infinite in fp32 soon. Waits."""
        return self.inner.get_scale() < 1

    def state_dict(self) -> dict[str, Any]:
        """Scale, steps since it was changed, steps left out."""
        return {"inner": self.inner.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.inner.load_state_dict(state["inner"])
        self.skipped.copy_(state["skipped"])

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to go backward from."""
        return self.inner.scale(loss)
