"""DINO (Caron et al. 2021): self-distillation without labels, many small crops of a scan against two large ones.

"Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294. That prototypes stand still for the
first epoch is from the authors' code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.methods import momentum
from fewscans.methods.base import Batch, Method, precise
from fewscans.networks import embedding_dim
from fewscans.networks.resized import fitting_side, forward_at
from fewscans.shape import Shape

# Share of the steps in which the teacher's temperature rises: of 100 epochs the paper warms up in 30.
_WARM = 0.3
# Prototypes stand still for an epoch, but for no more than this share of the steps.
_STILL = 0.1


class DINO(Method):
    """The student's prototypes of every crop match the centred, sharpened ones of the teacher for the large crops."""

    policy_kind: ClassVar[augment.Kind] = "ssl"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 0.04
    weight_decay_growth: ClassVar[float] = 10.0  # section 3.2: from 0.04 to 0.4
    paper_momentum: ClassVar[float] = 0.996

    latest: Tensor
    """Mean of the teacher's outputs of the step [1, K]."""
    still: Tensor
    """Steps that prototypes stand still yet []."""

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        # Section 3.1: 65,536 prototypes for 10^5 steps with batches of 1,024. With the paper's head, prototypes and
        # temperatures the loss of 180 steps on CT slices stays at that of guessing, log K; with these it falls (a
        # choice that takes no label).
        self.n_prototypes = settings.prototypes or min(65_536, 4 * settings.batch_size)
        e = embedding_dim(encoder)
        self.hidden = settings.projector_hidden or 2 * e
        self.head = Head(e, self.hidden, settings.projector_dim, self.n_prototypes)
        self.teacher = momentum.follower(nn.Sequential(encoder, self.head))
        self.local_side = fitting_side(encoder, round(shape.size * settings.local_side))
        low, middle = settings.local_area
        self.local_policy = self.policy.cropped(low, middle)
        self.policy = self.policy.cropped(middle, 1.0)
        self.base_momentum: float | None = settings.momentum
        self.register_buffer("centre", torch.zeros(1, self.n_prototypes))
        self.register_buffer("teacher_temperature", torch.tensor(settings.teacher_temperature[0]))
        self.register_buffer("still", torch.tensor(0))
        self.register_buffer("latest", torch.zeros(1, self.n_prototypes), persistent=False)

    def begin(self, n_scans: int, batch_size: int, n_steps: int) -> None:
        """Prototypes stand still for an epoch."""
        self.still.fill_(min(n_scans // batch_size, int(_STILL * n_steps)))

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Two large crops, then the small ones."""
        large = [batch.augmented(view, self.policy) for view in range(2)]
        small = [
            batch.augmented(2 + i, self.local_policy, self.local_side)
            for i in range(self.settings.local_crops)
        ]
        return (*large, *small)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of `cross_entropy` over pairs of a large crop and any other (equation 3)."""
        large, small = torch.cat(views[:2]), views[2:]
        h = self.encoder(large)
        embedded = [h, forward_at(self.encoder, torch.cat(small))] if small else [h]
        student = self.head(torch.cat(embedded), self.still > 0).chunk(len(views))
        with torch.no_grad():
            teacher = self.teacher(large)
            # The mean over the whole batch, of all processes; equation 4 moves the centre after the step.
            latest = self.gather(teacher).mean(dim=0, keepdim=True)
            # Micro-batches are as long as each other, but for one scan.
            self.latest = (
                latest if self.part == 0 else self.latest.lerp(latest, 1 / (self.part + 1))
            )
            targets = F.softmax((teacher - self.centre) / self.teacher_temperature, dim=1).chunk(2)
        loss = cross_entropy(targets, student, self.settings.temperature)
        return loss, {"embedding": h.detach()}

    def after_step(self, step: int, n_steps: int) -> None:
        """Centre, teacher and its temperature follow."""
        self.still.sub_(1).clamp_(min=0)
        self.centre.lerp_(self.latest, 1 - self.settings.centre_momentum)
        self.base_momentum = momentum.base_momentum(
            self.settings.momentum, self.paper_momentum, n_steps
        )
        tau = momentum.rising(self.base_momentum, step, n_steps)
        momentum.follow(self.teacher, nn.Sequential(self.encoder, self.head), tau)
        first, last = self.settings.teacher_temperature
        self.teacher_temperature.fill_(first + (last - first) * min(1.0, step / (_WARM * n_steps)))

    def resolved(self) -> dict[str, Any]:
        """Sizes of the head and of small crops, and the first momentum."""
        return {
            "projector_hidden": self.hidden, "prototypes": self.n_prototypes, "local_pixels": self.local_side,
            "momentum": self.base_momentum,
        }  # fmt: skip


class Head(nn.Module):
    """Three linear layers with batch norm and GELU, L2 normalisation, prototypes of length 1 (section 3.1, appendix C).

    The paper's head for ViTs has no batch norm; with it scans differ from the first step on.
    """

    def __init__(self, e: int, hidden: int, bottleneck: int, n_prototypes: int) -> None:
        super().__init__()

        def layer(a: int, b: int) -> list[nn.Module]:
            return [nn.Linear(a, b), nn.BatchNorm1d(b), nn.GELU()]

        self.mlp = nn.Sequential(
            *layer(e, hidden), *layer(hidden, hidden), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.empty(n_prototypes, bottleneck))
        for weight in (*(m.weight for m in self.mlp if isinstance(m, nn.Linear)), self.prototypes):
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, still: Tensor | None = None) -> Tensor:
        """Logits [B, K] of `h` [B, E]: cosines with the prototypes (weight normalisation with its norm held at 1).

        Where `still` [] is true, prototypes have gradients of zero.
        """
        w = self.prototypes
        if still is not None:
            w = torch.where(still, w.detach(), w)
        return F.linear(F.normalize(self.mlp(h), dim=1), F.normalize(w, dim=1))


def cross_entropy(targets: Any, student: Any, temperature: float) -> Tensor:
    """Mean of H(P_t(x), P_s(x')) over large crops x and all other crops x', and over scans (equations 1 and 3).

    Parameters
    ----------
    targets
        The teacher's distributions [B, K] of the large crops.
    student
        Logits [B, K] of all crops, the large ones first and in the same order.
    """
    logs = [F.log_softmax(precise(logits) / temperature, dim=1) for logits in student]
    terms = [
        -(target * log).sum(dim=1).mean()
        for i, target in enumerate(targets)
        for j, log in enumerate(logs)
        if i != j
    ]
    return torch.stack(terms).mean()


METHOD = DINO
