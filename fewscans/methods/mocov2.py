"""MoCo v2: a query finds its key among those that a slowly following network made in earlier steps.

Queue, momentum and loss: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv
1911.05722. Head and temperature: Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning", arXiv
2003.04297.

**Shuffling batch norm** (He et al. 2020, section 3.3) is not here. Without it a query and its key are normalised with
the same scans, and unlike the queue's keys: the network can tell the positive by the batch's statistics and learns
nothing else. Shuffling needs several GPUs with statistics of their own; ours are those of the whole batch, whatever
the number of processes. In its place the key network normalises by running statistics, which follow those of the
query's network like the weights do (EMAN: Cai et al. 2021, arXiv 2101.08482, section 3.2): a key depends on its own
scan alone, and the leak is closed, not made smaller.

**The queue** of the paper has 65,536 keys, 5 % of its images. One longer than the data would hold each scan several
times. Ours has as many whole batches as an epoch has besides the present one, so each other scan about once, and one
batch at least. What is left of a scan's own earlier key in it (each epoch has an order of its own) is no negative,
while in the paper, where it is rare, it is one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods import momentum
from fewscans.methods.base import Batch, Method
from fewscans.methods.contrast import related, two_views, unit
from fewscans.networks import embedding_dim
from fewscans.shape import Shape

# Of a random key that fills the queue before the first step: of nobody.
NOBODY = -1


class MoCoV2(Method):
    """A query's key is nearer to it than the queue's."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    # Of 1e-3, 2e-3 and 4e-3 the lowest loss after 180 steps on CT slices at 48 pixels (no label is taken).
    base_lr: ClassVar[float] = 4e-3
    weight_decay: ClassVar[float] = 1e-4
    paper_momentum: ClassVar[float] = 0.999
    """He et al. 2020, section 4, m."""
    paper_queue: ClassVar[int] = 65_536
    """Section 4, K."""

    queue: Tensor
    """Normalised keys [K, D], the oldest first."""
    queue_kin: Tensor
    """Who they are of: int64 [K]."""
    made: tuple[Tensor, ...]
    """Keys of the step, and who they are of."""

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        e, d = embedding_dim(encoder), settings.projector_dim
        self.hidden = settings.projector_hidden or e
        # Chen et al. 2020, section 3: 2048 behind a ResNet-50's 2048; no norm.
        self.projector = nn.Sequential(
            nn.Linear(e, self.hidden), nn.ReLU(inplace=True), nn.Linear(self.hidden, d)
        )
        self.target = momentum.follower(nn.Sequential(encoder, self.projector)).eval()
        self.base_momentum: float | None = settings.momentum
        self._fill(settings.queue or settings.batch_size)

    def begin(self, n_scans: int, batch_size: int, n_steps: int) -> None:
        """Length of the queue and momentum, where they are left open."""
        self.base_momentum = momentum.base_momentum(
            self.settings.momentum, self.paper_momentum, n_steps
        )
        self._fill(self.settings.queue or queue_length(n_scans, batch_size, self.paper_queue))

    def _fill(self, length: int) -> None:
        """A queue of random keys."""
        keys = torch.randn(
            length, self.projector[-1].out_features, generator=torch.Generator().manual_seed(0)
        )
        device = next(self.parameters()).device
        self.register_buffer("queue", unit(keys).to(device))
        self.register_buffer("queue_kin", torch.full((length,), NOBODY, device=device))

    def train(self, mode: bool = True) -> MoCoV2:
        """The key network always normalises by running statistics."""
        super().train(mode)
        self.target.eval()
        return self

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two augmentations of each scan, and whose keys are no negatives of its: those of its patient or its own."""
        x1, x2, *patient = two_views(batch, self.policy, self.settings)
        return (x1, x2, *(patient or [batch.scan]))

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries of the first view, keys of the second (algorithm 1)."""
        x1, x2, kin = views
        h = self.encoder(x1)
        q = self.projector(h)
        with torch.no_grad():
            k = unit(self.target(x2))
        # Of all processes and micro-batches; queued after the step.
        made = self.gather(k), self.gather(kin)
        self.made = (
            made if self.part == 0 else tuple(map(torch.cat, zip(self.made, made, strict=True)))
        )
        spared = related(kin, self.queue_kin)
        loss = info_nce(q, k, self.queue, self.settings.temperature, spared)
        return loss, {"embedding": h.detach()}

    def after_step(self, step: int, n_steps: int) -> None:
        """The keys' network follows (equation 2), with its statistics; the oldest keys make place for the new."""
        self.base_momentum = momentum.base_momentum(
            self.settings.momentum, self.paper_momentum, n_steps
        )
        online = nn.Sequential(self.encoder, self.projector)
        momentum.follow(self.target, online, self.base_momentum)
        follow_statistics(self.target, online, self.base_momentum)
        for queue, new in zip((self.queue, self.queue_kin), self.made, strict=True):
            queue.copy_(torch.cat([queue, new])[-len(queue) :])

    def resolved(self) -> dict[str, Any]:
        """Width of the head, momentum, length of the queue."""
        return {
            "projector_hidden": self.hidden, "momentum": self.base_momentum, "queue": len(self.queue),
        }  # fmt: skip


def queue_length(n_scans: int, batch_size: int, most: int) -> int:
    """Keys in the queue: whole batches, an epoch's without the present one, at least one and `most` at most."""
    batches = min(n_scans - batch_size, most) // batch_size
    return max(batches, 1) * batch_size


@torch.no_grad()
def follow_statistics(follower: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move the running statistics of batch norms (all buffers of floats) like weights."""
    for mine, theirs in zip(follower.buffers(), module.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - momentum)


def info_nce(
    q: Tensor, k: Tensor, queue: Tensor, temperature: float, spared: Tensor | None = None
) -> Tensor:
    """He et al. 2020, equation 1, mean over queries: -log( exp(q k+ / t) / (exp(q k+ / t) + sum_queue exp(q k / t)) ).

    Parameters
    ----------
    q, k
        Queries and their keys [B, D], normalised here; no gradient to the keys.
    queue
        Normalised keys [K, D].
    spared
        Which keys of the queue are no negatives, bool [B, K].
    """
    q, k = unit(q), unit(k.detach())
    negative = q @ queue.to(q.dtype).T / temperature
    if spared is not None:
        negative = negative.masked_fill(spared, float("-inf"))
    positive = (q * k).sum(dim=1, keepdim=True) / temperature
    first = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    return F.cross_entropy(torch.cat([positive, negative], dim=1), first)


METHOD = MoCoV2
