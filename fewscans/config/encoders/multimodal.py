"""Methods that contrast scans with what else is known of patients."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from fewscans.config.base import Fraction
from fewscans.config.encoders.base import PretrainSettings


class Contig(PretrainSettings):
    """ContIG: a scan and the values of its patient attract, those of others repel (Taleb et al. 2022).

    Needs tables: `values` of the data set.
    """

    method: Literal["contig"] = "contig"
    title: ClassVar[str] = "ContIG"
    module: ClassVar[str] = "fewscans.methods.contig"
    tables: list[str] | None = Field(default=None, min_length=1)
    """Which tables of the data set's `values`; without it all of them."""
    aggregation: Literal["outer", "inner", "none"] = "outer"
    """Of several tables. `outer`: each table with the scans that have a row in it. `inner`: only scans that have a row
    in every one, which may be few. `none`: one table alone."""
    temperature: float = Field(default=0.1, gt=0, le=10)
    """Of the similarities (0.1 in the authors' code)."""
    image_weight: Fraction = 0.75
    """Weight of telling the own values from others' by the scan; the rest is that of telling the own scan from others'
    by the values (lambda; 0.75 in the authors' code)."""
    projector_dim: int = Field(default=128, ge=2, le=65_536)
    """Output of the heads of scans and tables (128 in the authors' code)."""
    projector_hidden: int | None = Field(default=None, ge=2, le=65_536)
    """Hidden width of the scans' heads, one for each table; without it the encoder's own, as there."""
    table_hidden: list[int] | None = Field(default=None, max_length=4)
    """Hidden widths of each table's network; `[]` is a linear one. Without it one hidden layer as wide as the
    encoder's output, and at most eight times the table's columns: the authors' 2,048 are for thousands of them, and
    would know a few patients by heart."""

    def wants(self) -> tuple[str, ...]:
        """Values; patients too, since scans of one patient have the same values and are no negatives."""
        return ("patient", "values")
