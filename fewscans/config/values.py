"""Tables of values beside the scans (laboratory, clinic, genotypes), and which encoders need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fewscans.config.base import Settings
from fewscans.errors import Problems, did_you_mean

VALUES = "values"


class ValueTable(Settings):
    """Values of patients or scans. Who has no row, has no values of this kind."""

    table: str
    """CSV, TSV or Parquet with a row per patient or scan; relative to the data set's `root`."""
    by: Literal["patient", "path"] = "patient"
    """Whose values a row has: a patient's, or one scan's."""
    key: str | None = None
    """Column that says whose row it is; without it the one named as `by`."""
    columns: list[str] | None = Field(default=None, min_length=1)
    """Columns with values; without it all but the key and what `columns` of the data set names. Numbers (a genotype's
    0, 1, 2 too) are standardised, words become a column each, and gaps get their column's mean and a column that says
    so; means, deviations and words are those of training scans alone."""
    exclude: list[str] = []
    """Columns to leave out where `columns` is open."""


Tables = Mapping[str, Mapping[str, ValueTable]]


def with_files(tables: Tables, dataset: str, given: Mapping[str, Path]) -> Tables:
    """`tables` (data set -> name -> table) with files from ``--values NAME=FILE`` or ``POOL/NAME=FILE``.

    A table that is not among them has a row per patient, and all its columns count.
    """
    made = {name: dict(own) for name, own in tables.items()}
    for key, path in given.items():
        owner, _, name = key.rpartition("/")
        own = made.setdefault(owner or dataset, {})
        known = own.get(name, ValueTable(table=str(path)))
        own[name] = known.model_copy(update={"table": str(path)})
    return made


def check_values(encoders: Mapping[str, Any], config: Any, problems: Problems) -> None:
    """Note encoders that want values where an evaluated data set has none, or not those that they name."""
    pools = {pool for dataset in config.datasets.values() for pool in dataset.pools}
    own = {name: dataset for name, dataset in config.datasets.items() if name not in pools}
    for name, encoder in encoders.items():
        if VALUES not in encoder.wants():
            continue
        for dataset, settings in own.items():
            _check_tables(name, encoder, dataset, list(settings.values), problems)


def _check_tables(
    name: str, encoder: Any, dataset: str, there: list[str], problems: Problems
) -> None:
    if not there:
        problems.add(
            f"datasets.{dataset}.{VALUES}",
            f"encoder '{name}' ({encoder.method}) contrasts scans with tables, and there is none. Name some, e.g. "
            "`values: {labs: {table: labs.csv}}`, or leave the encoder out.",
        )
        return
    place = f"encoders.{name}"
    for table in encoder.tables or ():
        if table not in there:
            problems.add(
                f"{place}.tables",
                f"'{table}' is not among the values of data set {dataset}.{did_you_mean(table, there)}",
            )
    n = len(encoder.tables or there)
    if encoder.aggregation == "none" and n > 1:
        problems.add(
            f"{place}.aggregation",
            f"'none' is for one table, and {n} would be used. Name one in `tables`, or take outer or inner.",
        )
