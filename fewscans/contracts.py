"""The tables between stages: their columns, checked where they are written (DESIGN: contracts).

Names from outside (classes, attributes) are values in these tables, never column names.
"""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewscans.files import atomic, canonical_json

TEXT, INT, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
REALS, INTS = pa.list_(pa.float64()), pa.list_(pa.int64())

# One entry per file; see docs/contracts.md for what a row is.
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    # a scan found; key `scan` = hash of data set and relative path; `affine`: 12 numbers, the rows of the 3 x 4 matrix
    # from (x, y, z) of the stored array (its last axes backwards) to RAS in mm, empty where nobody says
    "index": {
        "scan": TEXT,
        "path": TEXT,
        "format": TEXT,
        "mode": TEXT,
        "shape": INTS,
        "spacing_mm": REALS,
        "affine": REALS,
        "channels": INT,
        "bits": INT,
        "dtype": TEXT,
        "offset": INT,
        "scale": REAL,
        "intercept": REAL,
        "unit": TEXT,
        "mean": REAL,
        "sha256": TEXT,
        "pixel_sha256": TEXT,
        "status": TEXT,
        "reason": TEXT,
    },
    # a scan with what the label table and the audit say; target "" = no label; status as in index or `contradiction`
    "labels": {
        "scan": TEXT,
        "path": TEXT,
        "patient": TEXT,
        "group": TEXT,
        "target": TEXT,
        "split": TEXT,
        "site": TEXT,
        "status": TEXT,
        "reason": TEXT,
    },
    "duplicates": {
        "scan_a": TEXT,
        "scan_b": TEXT,
        "path_a": TEXT,
        "path_b": TEXT,
        "patient_a": TEXT,
        "patient_b": TEXT,
        "target_a": TEXT,
        "target_b": TEXT,
        "split_a": TEXT,
        "split_b": TEXT,
        "kind": TEXT,
        "correlation": REAL,
    },
    "groups": {"group": TEXT, "n_patients": INT, "n_scans": INT, "patients": TEXT},
    # severity: info, warning, error; action: what was done about it
    "findings": {
        "check": TEXT,
        "severity": TEXT,
        "scan": TEXT,
        "path": TEXT,
        "message": TEXT,
        "action": TEXT,
        "value": REAL,
        "low": REAL,
        "high": REAL,
    },
    "rows": {
        "row": INT,
        "scan": TEXT,
        "shape": INTS,
        "spacing_mm": REALS,
        "pixel_sha256": TEXT,
        "scale": REAL,
        "intercept": REAL,
    },
    # role: train (labelled or not, may be pretrained on), test, pool (other data set), excluded
    "folds": {"scan": TEXT, "group": TEXT, "fold": TEXT, "role": TEXT},
    "budgets": {"fold": TEXT, "budget": TEXT, "draw": INT, "scan": TEXT, "inner": INT},
    "history": {
        "step": INT,
        "epoch": REAL,
        "loss": REAL,
        "lr": REAL,
        "grad_norm": REAL,
        "embedding_std": REAL,
        "effective_rank": REAL,
        "images_per_s": REAL,
        "memory_mb": REAL,
        "alignment": REAL,
        "uniformity": REAL,
        "knn_balanced_accuracy": REAL,
    },
    # a trial of a search; values are JSON, looks the values on the way
    "trials": {
        "trial": INT,
        "state": TEXT,
        "value": REAL,
        "values": TEXT,
        "looks": REALS,
        "seconds": REAL,
        "reason": TEXT,
    },
    "predictions": {
        "dataset": TEXT,
        "test_dataset": TEXT,
        "condition": TEXT,
        "arm": TEXT,
        "fold": TEXT,
        "seed": INT,
        "budget": TEXT,
        "draw": INT,
        "role": TEXT,
        "inner": INT,
        "scan": TEXT,
        "patient": TEXT,
        "group": TEXT,
        "target": INT,
        "prob": REALS,
    },
    "embeddings": {"row": INT, "scan": TEXT, "role": TEXT},
    "scores": {
        "dataset": TEXT,
        "arm": TEXT,
        "budget": TEXT,
        "unit": TEXT,
        "metric": TEXT,
        "value": REAL,
        "low": REAL,
        "high": REAL,
        "sd_draws": REAL,
        "sd_seeds": REAL,
        "method": TEXT,
        "n_groups": INT,
        "flags": TEXT,
    },
    "contrasts": {
        "dataset": TEXT,
        "arm": TEXT,
        "baseline_arm": TEXT,
        "budget": TEXT,
        "unit": TEXT,
        "metric": TEXT,
        "diff": REAL,
        "low": REAL,
        "high": REAL,
        "se": REAL,
        "smallest_detectable": REAL,
        "verdict": TEXT,
        "method": TEXT,
        "flags": TEXT,
    },
}


def schema(name: str, **metadata: Any) -> pa.Schema:
    """Arrow schema of a contract; `metadata` is kept as JSON under the key ``fewscans``."""
    fields = [pa.field(column, kind) for column, kind in COLUMNS[name].items()]
    return pa.schema(fields, metadata={"fewscans": canonical_json(metadata)} if metadata else None)


def write_table(
    path: str | os.PathLike[str], name: str, frame: pd.DataFrame, **metadata: Any
) -> None:
    """Write `frame` as the contract `name`: its columns first, in order and type, then any others.

    Raises
    ------
    ValueError
        A column is missing or does not convert: a mistake of ours, not of the user.
    """
    missing = [column for column in COLUMNS[name] if column not in frame.columns]
    if missing:
        raise ValueError(f"{name}: columns missing: {', '.join(missing)}")
    known = schema(name)
    arrays = [pa.array(frame[field.name].tolist(), field.type, from_pandas=True) for field in known]
    fields = list(known)
    for column in [c for c in frame.columns if c not in COLUMNS[name]]:
        array = pa.array(frame[column].tolist(), from_pandas=True)
        arrays.append(array)
        fields.append(pa.field(column, array.type))
    table = pa.Table.from_arrays(
        arrays, schema=pa.schema(fields, metadata=schema(name, **metadata).metadata)
    )
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: str | os.PathLike[str], name: str) -> pd.DataFrame:
    """Read a table of the contract `name`; a ValueError names the columns that are not there."""
    table = pq.read_table(path)
    missing = [column for column in COLUMNS[name] if column not in table.column_names]
    if missing:
        raise ValueError(f"{path}: not a table of '{name}': columns missing: {', '.join(missing)}")
    return table.to_pandas()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_table` was given as metadata; empty where nothing was."""
    import json

    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(b"fewscans", b"{}"))
