"""Jigsaw (Noroozi & Favaro 2016): tell by which permutation the patches of a scan were mixed.

"Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", arXiv 1603.09246. Several permutations of a
scan share its encoded patches (Kolesnikov et al. 2019, arXiv 1901.09005, section 3.2). Volumes: "3D Self-Supervised
Methods for Medical Imaging" (Taleb et al. 2020, arXiv 2006.03829, section 3.4).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.errors import UserError
from fewscans.methods.base import Batch, Method, precise
from fewscans.methods.heads import mlp
from fewscans.methods.patches import make_cells
from fewscans.methods.permutations import far_apart, most
from fewscans.networks import embedding_dim
from fewscans.networks.resized import forward_at
from fewscans.shape import Shape

# Side of a cell from which on there are three of them along an axis.
_ROOMY = 24
# Classes where nothing is said, if the grid has as many (Kolesnikov et al. 2019).
_CLASSES = 100


class Jigsaw(Method):
    """One encoder for all patches; a head sees their embeddings in the mixed order."""

    policy_kind: ClassVar[augment.Kind] = "placed"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        grid = settings.grid or (3 if shape.size // 3 >= _ROOMY else 2)
        self.cells = make_cells(encoder, shape, grid, "jigsaw")
        n = settings.n_permutations or min(_CLASSES, most(self.cells.n))
        if n > most(self.cells.n):
            raise UserError(
                f"jigsaw: {self.cells.n} patches have {most(self.cells.n)} permutations that are far apart. Use an "
                f"`n_permutations` of at most {most(self.cells.n)}, or `grid: 3`."
            )
        self.register_buffer(
            "permutations", torch.from_numpy(far_apart(self.cells.n, n)), persistent=False
        )
        width = self.cells.n * embedding_dim(encoder)
        self.head = mlp([width, settings.head_hidden, n])

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """Patches [B, N, C, *s] in their own order, and which permutations: int64 [B, orders]."""
        n_jitter, orders = self.cells.n * self.cells.ndim, self.settings.orders
        u = batch.random(n_jitter + orders)
        patches = self.cells.cut(batch.augmented(0, self.policy), u[:, :n_jitter])
        drawn = np.floor(u[:, n_jitter:] * len(self.permutations)).astype(np.int64)
        return patches, torch.from_numpy(drawn).to(patches.device)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy over all scans and their permutations."""
        patches, drawn = views
        h = forward_at(self.encoder, patches.flatten(0, 1))
        mixed = mix(h.unflatten(0, patches.shape[:2]), self.permutations[drawn])
        logits = precise(self.head(mixed.flatten(0, 1)))
        return F.cross_entropy(logits, drawn.flatten()), {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """The puzzle in numbers."""
        cells = self.cells
        return {
            "grid": cells.grid,
            "n_permutations": len(self.permutations),
            "cell": cells.cell,
            "patch_side": cells.side,
        }

    def shown(self, batch: Batch) -> Tensor:
        """The first two mixed orders."""
        patches, drawn = self.views(batch)
        rows = torch.arange(len(patches), device=patches.device)[:, None]
        mixed = [patches[rows, self.permutations[drawn[:, i]]] for i in range(drawn.shape[1])][:2]
        return torch.stack([self.cells.laid_out(one, self.shape.size) for one in mixed], dim=1)


def mix(h: Tensor, permutations: Tensor) -> Tensor:
    """Embeddings h [B, N, E] in the orders `permutations` [B, R, N], one after the other: [B, R, N E]."""
    rows = torch.arange(len(h), device=h.device)[:, None, None]
    return h[rows, permutations].flatten(2)


METHOD = Jigsaw
