"""Values of training scans from tables (laboratory, clinic, genotypes), as numbers that a network takes.

All that is learnt from the tables (means, deviations, words, which columns say anything) is learnt from rows of the
training scans alone, each row once: a patient with many scans weighs no more than others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans.config.values import Tables
from fewscans.convert import paths as path_rules
from fewscans.convert.rows import Row
from fewscans.convert.values import kind_of, number, read_values
from fewscans.errors import Problems, UserError, did_you_mean

log = logging.getLogger("fewscans")


@dataclass(frozen=True)
class Values:
    """One table as N scans have it.

    Attributes
    ----------
    name
        Of the table.
    columns
        F names: a column's own, ``COLUMN=WORD``, ``COLUMN missing``.
    x
        float32 [N, F]; zeros where there is no row.
    present
        bool [N]; whether there is a row.
    """

    name: str
    columns: tuple[str, ...]
    x: NDArray[np.float32]
    present: NDArray[np.bool_]

    def identity(self) -> dict[str, Any]:
        """Name, and a digest of all numbers in the order of the scans."""
        made = hashlib.sha256(repr(self.x.shape).encode())
        made.update(np.ascontiguousarray(self.x).tobytes())
        made.update(self.present.tobytes())
        return {"name": self.name, "digest": made.hexdigest()[:16]}


def read_all(
    scans: pd.DataFrame, tables: Tables, dataset: str, names: Sequence[str] | None = None
) -> tuple[Values, ...]:
    """Values of training scans, for each table of `dataset`.

    Parameters
    ----------
    scans
        Their `dataset`, `path`, `patient`; a row each.
    tables
        Data set -> name -> table; those of other data sets (pools) count where they have the same name.
    names
        Which tables; all without it.

    Raises
    ------
    UserError
        With all that is wrong: no such table, no values of any training scan, columns that are neither.
    """
    own = tables.get(dataset, {})
    problems = Problems("values")
    wanted = list(own) if names is None else list(names)
    if not wanted:
        raise UserError(
            f"this method contrasts scans with tables, and data set {dataset} has none: give --values NAME=FILE."
        )
    made = []
    for name in wanted:
        if name not in own:
            problems.add(
                name,
                f"no such table of data set {dataset}: give --values.{did_you_mean(name, own)}",
            )
        elif (one := _read(scans, tables, dataset, name, problems)) is not None:
            made.append(one)
    problems.raise_if_any()
    return tuple(made)


def _read(
    scans: pd.DataFrame, tables: Tables, dataset: str, name: str, problems: Problems
) -> Values | None:
    columns: list[str] = []
    row_of = np.full(len(scans), -1, dtype=np.int64)
    rows: list[Row] = []
    for owner in sorted(tables, key=lambda other: (other != dataset, other)):
        given = tables[owner].get(name)
        if given is None:
            continue
        there, found = read_values(given, problems, f"{owner}/{name}")
        columns = columns or there
        places: dict[str, int] = {}
        for i in np.flatnonzero(scans["dataset"] == owner):
            key = scans[given.by].iloc[i]
            if given.by == "path":
                key = path_rules.row_of(key, found)  # a row of a folder is about each volume in it
            if key in found:
                if key not in places:
                    places[key] = len(rows)
                    rows.append(found[key])
                row_of[i] = places[key]
    if not columns:  # which is noted
        return None
    present = row_of >= 0
    if not rows:
        problems.add(
            name,
            f"no row is of any of the {len(scans)} training scans. Correct `by`, `key` or the file.",
        )
        return None
    encoded = _encode(name, columns, rows, problems)
    if encoded is None:
        return None
    x = np.zeros((len(scans), len(encoded)), dtype=np.float32)
    x[present] = np.column_stack(list(encoded.values()))[row_of[present]]
    log.info("values %s: %d of %d scans, %d columns", name, present.sum(), len(scans), x.shape[1])
    return Values(name, tuple(encoded), x, present)


def _encode(
    name: str, columns: Sequence[str], rows: Sequence[Row], problems: Problems
) -> dict[str, NDArray[np.float64]] | None:
    """Column -> numbers [rows]; columns that say nothing are left out with a warning."""
    made: dict[str, NDArray[np.float64]] = {}
    silent, faulty = [], False
    for column in columns:
        cells = [row.get(column, "") for row in rows]
        kind, message = kind_of(cells)
        if kind == "neither":
            problems.add(name, f"'{column}': {message}")
            faulty = True
            continue
        found = _numbers(column, cells) if kind == "numbers" else _words(column, cells)
        gaps = np.array([not cell for cell in cells])
        if 0 < gaps.sum() < len(gaps):
            found[f"{column} missing"] = gaps.astype(np.float64)
        if not found:
            silent.append(column)
        made |= found
    if silent:
        shown = ", ".join(silent[:8]) + (", ..." if len(silent) > 8 else "")
        log.warning(
            "values %s: %d columns say the same of all training scans and are left out: %s",
            name, len(silent), shown,
        )  # fmt: skip
    if not made and not faulty:
        problems.add(name, "every column says the same of all training scans. Leave the table out.")
    return made or None


def _numbers(column: str, cells: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Standardised, 0 where there is none; nothing where all are the same."""
    values = np.array([np.nan if (x := number(cell)) is None else x for cell in cells])
    there = ~np.isnan(values)
    if not there.any() or values[there].min() == values[there].max():
        return {}
    values = (values - values[there].mean()) / values[there].std()
    return {column: np.where(there, values, 0.0)}


def _words(column: str, cells: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """A column of 0 and 1 for each word; nothing where all are the same."""
    words = sorted(set(cells) - {""})
    if len(words) < 2:
        return {}
    array = np.array(cells, dtype=object)
    return {f"{column}={word}": (array == word).astype(np.float64) for word in words}
