"""An exponential moving average of the weights of a training: what is kept instead of the last ones, if asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """Of what `module` trains, and of the statistics of the batch norms in `statistics_of` (without it: of all).

    After step t it moves by ``1 - min(decay, (1 + t) / (10 + t))``: an average that remembers 1,000 steps would still
    hold the first weights after a training of 200, so it begins short and remembers about a tenth of the steps so far
    (as the averages of TensorFlow and timm do).
    """

    def __init__(
        self, module: nn.Module, decay: float, statistics_of: nn.Module | None = None
    ) -> None:
        self.decay = decay
        statistics = (module if statistics_of is None else statistics_of).buffers()
        self._live = [p.data for p in module.parameters() if p.requires_grad]
        self._live += [b for b in statistics if b.is_floating_point()]
        self._kept = [tensor.clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Follow the weights after step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._kept, self._live, 1 - decay)

    def swap(self) -> None:
        """Exchange the average and the weights; once more puts both back."""
        for live, kept in zip(self._live, self._kept, strict=True):
            was = live.clone()
            live.copy_(kept)
            kept.copy_(was)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the average; a context."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> list[Tensor]:
        """All that is kept."""
        return self._kept

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Go on from `state`."""
        for kept, saved in zip(self._kept, state, strict=True):
            kept.copy_(saved)
