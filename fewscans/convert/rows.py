"""Rows of a table as text: CSV and TSV by the standard library, Parquet by pyarrow."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans.convert import paths as path_rules
from fewscans.convert.layouts import BIDS, DECATHLON, is_layout, layout_rows
from fewscans.errors import Problems, UserError, did_you_mean

Row = dict[str, str]
_PARQUET = {".parquet", ".pq"}
_TEXT = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}


def read_rows(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of scans: those of a table (`read_table`), or of a layout that it belongs to (`fewscans.convert.layouts`).

    Raises
    ------
    UserError
        As `read_table`; everything that is wrong with a layout.
    """
    path = Path(path)
    if path.name in (BIDS, DECATHLON):
        rows = layout_rows(path, None)
    elif is_layout(path):
        rows = layout_rows(path, read_table(path))
    else:
        rows = None
    if rows is None:
        return read_table(path, columns)
    return _only(path, list(rows[0]), rows, columns)


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of a CSV, TSV or Parquet table as text, in its order; `columns` = only these.

    Raises
    ------
    UserError
        The file is missing, of another kind, broken, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such table.")
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        header, rows = _read_parquet(path, columns)
    elif suffix in _TEXT:
        header, rows = _read_text(path, _TEXT[suffix])
    else:
        raise UserError(f"{path}: a table is .csv, .tsv or .parquet. Save it as one of these.")
    return _only(path, header, rows, columns)


def _only(
    path: Path, header: list[str], rows: list[Row], columns: Sequence[str] | None
) -> list[Row]:
    problems = Problems(str(path))
    for column in columns or ():
        if column not in header:
            problems.add(column, f"no such column.{did_you_mean(column, header)}")
    problems.raise_if_any()
    return [{name: row[name] for name in columns} for row in rows] if columns is not None else rows


def _read_text(path: Path, delimiter: str) -> tuple[list[str], list[Row]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text. Save it as CSV UTF-8.") from None
    problems = Problems(str(path))
    first = text.partition("\n")[0]
    # Spreadsheets of many countries write ';' into a .csv: what splits the first line into most
    # columns is meant.
    delimiter = max(
        [delimiter, ",", "\t", ";", "|"],
        key=lambda d: len(next(csv.reader([first], delimiter=d), [])),
    )
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line
        ]
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}).") from None
    if not lines:
        raise UserError(f"{path}: the table is empty.")
    header = [name.strip() for name in lines[0]]
    for name, n in Counter(header).items():
        if n > 1 and name:
            problems.add(name, f"{n} columns have this name. Rename one.")
    uneven = [
        f"row {n} has {len(line)}"
        for n, line in enumerate(lines[1:], start=1)
        if len(line) != len(header)
    ]
    if uneven:
        listed = path_rules.shown(uneven)
        problems.add(
            "table",
            f"{len(header)} columns, but:{listed}\n      Quote cells that hold {delimiter!r}.",
        )
    problems.raise_if_any()
    return header, [dict(zip(header, line, strict=True)) for line in lines[1:]]


def _read_parquet(path: Path, columns: Sequence[str] | None) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        header = pq.read_schema(path).names
        wanted = [name for name in columns if name in header] if columns is not None else header
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a Parquet table ({str(error).splitlines()[0]}).") from None
    data = {name: [_as_text(value) for value in table[name].to_pylist()] for name in wanted}
    return header, [{name: data[name][i] for name in wanted} for i in range(table.num_rows)]


def _as_text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with gaps comes as float
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
