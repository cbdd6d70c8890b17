"""ContIG (Taleb et al. 2022): a scan and the values of its patient attract, those of other patients repel.

"ContIG: Self-supervised Multimodal Contrastive Learning for Medical Imaging with Genetics", CVPR 2022, arXiv
2111.13424. Loss and heads as in the authors' code (github.com/HealthML/ContIG): the own pair is in the denominator,
pairs of two scans or two rows have no part, tables have equal weights that add up to 1, and the scans' embedding has a
head for each. Two things differ. Scans of one patient are no negatives of each other: they have the same values. And a
table's network is small where the table is (`table_hidden`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans.errors import UserError
from fewscans.known import Known
from fewscans.methods.base import Batch, Method
from fewscans.methods.contrast import attract, related, unit
from fewscans.networks import embedding_dim
from fewscans.shape import Shape

# Hidden units of a table's network for each of its columns, at most.
PER_COLUMN = 8


class ContIG(Method):
    """Each table has a network of its own, and the scans' embedding a head for each table."""

    # The authors' code has 1e-3 for Adam at a batch of 64.
    base_lr: ClassVar[float] = 4e-3
    weight_decay: ClassVar[float] = 1e-4
    compares: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        self.image_heads, self.tables = nn.ModuleList(), nn.ModuleList()
        self.names: list[str] = []

    def know(self, known: Known) -> None:
        """Make a head and a network for each table.

        Raises
        ------
        UserError
            There are not two patients who can be told apart: by a table, or with `inner` by all of them.
        """
        settings, e = self.settings, embedding_dim(self.encoder)
        self.names = [table.name for table in known.values]
        _check(known, settings.aggregation)
        for table in known.values:
            columns = len(table.columns)
            hidden = settings.table_hidden
            if hidden is None:
                hidden = [min(e, PER_COLUMN * columns)]
            head = [e, settings.projector_hidden or e, settings.projector_dim]
            self.image_heads.append(_perceptron(head))
            self.tables.append(_perceptron([columns, *hidden, settings.projector_dim]))

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """An augmentation of each scan, patients [B], and for each table its values [B, F] and who has any [B]."""
        values = [part for table in batch.values for part in table]
        return batch.augmented(0, self.policy), batch.patient, *values

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over tables of `cross_modal`, over the whole batch; the embedding is what comes before the heads."""
        x, patient, *values = views
        h = self.encoder(x)
        if not values:  # nothing is known: as where only the time of a step is measured
            return 0.0 * h.sum(), {"embedding": h.detach()}
        patient = self.gather(patient)
        # Rows of those without values go through too: what ranks exchange must not depend on who has some.
        pairs = [
            (self.gather(head(h)), self.gather(table(v)))
            for head, table, v in zip(self.image_heads, self.tables, values[::2], strict=True)
        ]
        present = [self.gather(p) for p in values[1::2]]
        s = self.settings
        loss = aggregate(
            pairs, present, patient, s.temperature, s.image_weight, inner=s.aggregation == "inner"
        )
        return loss, {"embedding": h.detach()}

    def resolved(self) -> dict[str, Any]:
        """Tables, and widths of the networks."""
        if not self.names:
            return {}
        hidden = [_widths(table)[1:-1] for table in self.tables]
        return {
            "tables": self.names, "projector_hidden": _widths(self.image_heads[0])[1],
            "table_hidden": hidden[0] if len(hidden) == 1 else hidden,
        }  # fmt: skip


def aggregate(
    pairs: Sequence[tuple[Tensor, Tensor]],
    present: Sequence[Tensor],
    patient: Tensor,
    temperature: float,
    weight: float,
    *,
    inner: bool,
) -> Tensor:
    """Mean over tables of `cross_modal`; the arguments are a list of its own for each table.

    Parameters
    ----------
    inner
        Only scans that are present in all tables; else for each table those that are in it.
    """
    if inner:
        present = [torch.stack(list(present)).all(dim=0)] * len(pairs)
    losses = [
        cross_modal(image, table, there, patient, temperature, weight)
        for (image, table), there in zip(pairs, present, strict=True)
    ]
    return torch.stack(losses).mean()


def cross_modal(
    image: Tensor,
    table: Tensor,
    present: Tensor,
    patient: Tensor,
    temperature: float,
    weight: float,
) -> Tensor:
    """`weight` * l(image, table) + (1 - `weight`) * l(table, image), mean over the scans that are present.

    l(u, v)_i = -log( exp(cos(u_i, v_i) / t) / sum_k exp(cos(u_i, v_k) / t) ), k over i itself and all that are present
    and of other patients. Zero, with gradients, where less than two patients are present.

    Parameters
    ----------
    image, table
        Projections [B, D].
    present
        bool [B], whether a scan has a row in the table.
    patient
        int64 [B], equal numbers are one patient.
    """
    similarity = unit(image) @ unit(table).T / temperature
    own = torch.diag(present)
    allowed = own | (present[:, None] & present[None, :] & ~related(patient))
    return weight * attract(similarity, own, allowed) + (1 - weight) * attract(
        similarity.T, own, allowed
    )


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of `widths`, ReLU between them; no batch norm, whose statistics rows without values would enter."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.ReLU(inplace=True), nn.Linear(a, b)]
    return nn.Sequential(*layers[1:])


def _widths(network: nn.Module) -> list[int]:
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def _check(known: Known, aggregation: str) -> None:
    if not known.values:
        return
    if aggregation == "none" and len(known.values) > 1:
        raise UserError("`aggregation: none` is for one table. Name one in `tables`.")
    present = {table.name: table.present for table in known.values}
    if aggregation == "inner":
        both = known.values[0].present.copy()
        for table in known.values[1:]:
            both &= table.present
        present = {"all tables": both}
    for name, there in present.items():
        n = len(set(known.patient[there].tolist()))
        if n < 2:
            way = (
                "Take `aggregation: outer`, or name fewer `tables`."
                if aggregation == "inner"
                else "Leave it out."
            )
            raise UserError(
                f"values {name}: {n} patients of the training scans are in it, and a contrast needs 2. {way}"
            )


METHOD = ContIG
