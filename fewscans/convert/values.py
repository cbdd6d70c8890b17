"""Tables of values as a user has them: which row is whose, what is a number, and what is wrong with them.

Standard library only: the workflow checks them before any job starts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from fewscans.convert import paths as path_rules
from fewscans.convert.rows import Row, read_table
from fewscans.errors import Problems, UserError, did_you_mean

if TYPE_CHECKING:
    from fewscans.config.values import ValueTable

# More different words are a text, a date or an identifier, and no category.
MOST_WORDS = 20
_MISSING = {"", "na", "n/a", "nan", "null", "none", "."}


def read_values(
    given: ValueTable, problems: Problems, place: str
) -> tuple[list[str], dict[str, Row]]:
    """(columns with values, key -> cells of these columns); nothing of both where it cannot be read.

    A cell without a value is "". Keys are patients, or paths in their normal form. What is wrong is noted: no such
    file or column, nothing but keys, two rows of one key that differ.
    """
    try:
        rows = read_table(given.table)
    except UserError as error:
        for what, message in error.problems or [("", error.title)]:
            problems.add(place, f"{what}: {message}" if what else message)
        return [], {}
    if not rows:
        problems.add(place, f"{given.table}: the table has no rows.")
        return [], {}
    key, columns = _columns(given, list(rows[0]), problems, place)
    if key is None or not columns:
        return [], {}
    found: dict[str, Row] = {}
    differing: dict[str, None] = {}
    for row in rows:
        name = row[key].strip()
        if given.by == "path":
            with contextlib.suppress(ValueError):  # then nobody's: a scan's path has a normal form
                name = path_rules.normal_path(name)
        cells = {column: _cell(row[column]) for column in columns}
        if name and found.setdefault(name, cells) != cells:
            differing[name] = None
    if differing:
        way = "" if given.by == "path" else " Where each scan has its own, write `by: path`."
        problems.add(
            place,
            f"{path_rules.count(list(differing), given.by)} with two rows that differ; give one "
            f"each.{way}{path_rules.shown(list(differing))}",
        )
    return columns, found


def _columns(
    given: ValueTable, header: Sequence[str], problems: Problems, place: str
) -> tuple[str | None, list[str]]:
    """(key, columns with values), None and none where they are not there."""
    key = given.key or given.by
    if key not in header:
        problems.add(
            f"{place}.key", f"{given.table} has no column '{key}'.{did_you_mean(key, header)}"
        )
        return None, []
    for name in given.columns or ():
        if name not in header:
            problems.add(
                f"{place}.columns",
                f"{given.table} has no column '{name}'.{did_you_mean(name, header)}",
            )
    left_out = {"", key, *given.exclude}
    columns = [name for name in header if name not in left_out]
    if given.columns is not None:
        columns = [name for name in dict.fromkeys(given.columns) if name in header]
    if not columns and given.columns is None:
        problems.add(place, f"{given.table} has no column with values beside '{key}'.")
    return key, columns


def _cell(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in _MISSING else text


def number(text: str) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def kind_of(cells: Iterable[str]) -> tuple[Literal["numbers", "words", "neither"], str]:
    """What the cells of a column are, empty ones apart; for ``neither`` the message that says so."""
    there = [cell for cell in cells if cell]
    odd = list(dict.fromkeys(cell for cell in there if number(cell) is None))
    if not odd:
        return "numbers", ""
    n_odd = sum(number(cell) is None for cell in there)
    way = "Correct these cells, or leave the column out (`exclude`)."
    if 2 * n_odd <= len(there):
        return "neither", f"most are numbers, {n_odd} are not (such as {odd[0]!r}). {way}"
    n_words = len(set(there))
    if n_words > MOST_WORDS:
        return "neither", (
            f"{n_words} different words (such as {odd[0]!r}): no number and, above {MOST_WORDS}, no category. {way}"
        )
    return "words", ""


def check_tables(
    tables: Mapping[str, ValueTable],
    scans: Sequence[Row],
    label: str,
    problems: Problems,
    place: str,
) -> None:
    """Note everything wrong with a data set's tables that shows before any job.

    Parameters
    ----------
    tables
        Name -> table, its file resolved.
    scans
        Label rows of the data set (`path`, `patient`); none where they cannot be read.
    label
        Column of the label, which is no value.
    """
    for name, given in tables.items():
        here = f"{place}.values.{name}"
        if label in (given.columns or ()):
            problems.add(
                f"{here}.columns", f"'{label}' is the label: pretraining would see it. Remove it."
            )
        columns, rows = read_values(given, problems, here)
        if not rows:
            continue
        _check_keys(given, rows, scans, problems, here)
        for column in columns:
            kind, message = kind_of(row[column] for row in rows.values())
            if kind == "neither":
                problems.add(f"{here}.columns", f"'{column}': {message}")


def _check_keys(
    given: ValueTable, rows: Collection[str], scans: Sequence[Row], problems: Problems, here: str
) -> None:
    keys = {scan[given.by] for scan in scans} - {""}
    named = {*rows, *(path_rules.split_number(row)[0] for row in rows)}
    if not scans or keys & named:
        return
    if not keys:
        problems.add(
            f"{here}.by", "the label table names no patients. Give a row per scan, and `by: path`."
        )
        return
    shown = f"(here such as {next(iter(rows))!r}, there {min(keys)!r})"
    problems.add(
        f"{here}.key",
        f"no row of {given.table} is of a {given.by} of the label table {shown}. Name the right column, or write "
        "both alike.",
    )
