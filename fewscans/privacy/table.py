"""The private table of a data set, ``work/private/DATASET.parquet``: what its scans, patients and sites were called.

`convert` writes a part of it for each chunk, `audit` puts them together with what the label table says. It is read to
look a pseudonym up (``fewscans who``), to give values of a patient to a method that asks for them, and to search what
is to be shared.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewscans.errors import UserError
from fewscans.privacy.files import write_private

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
# Of one scan: its keys, what it was called, what convert said of it in full, its date, text that must not leak.
PART: dict[str, pa.DataType] = {
    "scan": TEXT,
    "path": TEXT,
    "source_key": TEXT,
    "source": TEXT,
    "volume": TEXT,
    "sha256": TEXT,
    "reason": TEXT,
    "note": TEXT,
    "date": TEXT,
    "identifiers": TEXTS,
}
# Beside it, what the label table says.
TABLE: dict[str, pa.DataType] = {
    **PART,
    "patient": TEXT,
    "patient_key": TEXT,
    "site": TEXT,
    "site_key": TEXT,
    "attributes": TEXT,
}


def part_path(private: str | Path, dataset: str, chunk: int | str) -> Path:
    """Where convert leaves what it knows of one chunk."""
    return Path(private, dataset, f"{chunk}.parquet")


def table_path(private: str | Path, dataset: str) -> Path:
    """The private table of a data set."""
    return Path(private, f"{dataset}.parquet")


def write(path: Path, columns: dict[str, pa.DataType], rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` with mode 0600."""
    arrays = [pa.array([row[name] for row in rows], kind) for name, kind in columns.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), buffer, compression="zstd")
    write_private(path, buffer.getvalue())


def read(path: Path, columns: dict[str, pa.DataType]) -> pd.DataFrame:
    """A table as `write` wrote it.

    Raises
    ------
    UserError
        It is not there, or is another one.
    """
    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise UserError(
            f"{path}: the private table is missing or damaged. Convert again: snakemake --forcerun convert"
        ) from None
    missing = [name for name in columns if name not in found.column_names]
    if missing:
        raise UserError(f"{path}: columns missing: {', '.join(missing)}. Convert again.")
    return found.select(list(columns)).to_pandas()
