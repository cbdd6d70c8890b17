"""A label table that a test spoils, and what is then said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fewscans.config.models import DatasetSettings
from fewscans.convert.table import check_dataset
from fewscans.errors import Problems


@dataclass
class Where:
    """Where a data set lies, as `rawdata.resolve` says."""

    root: str | None = None
    table: str | None = None
    npz: str | None = None


def problems_of(root: Path, folds: int = 3, budgets=(), pool: bool = False, **dataset) -> str:
    """What `check_dataset` says of root/labels.csv."""
    table = dataset.setdefault("table", "labels.csv")
    found = Problems("config")
    where = Where(str(root), str(root / table) if table else None)
    made = DatasetSettings(root=str(root), **dataset)
    check_dataset("mine", made, where, found, folds=folds, budgets=budgets, pool=pool)
    return "\n".join(f"{place}: {message}" for place, message in found.lines)


def change(root: Path, **columns) -> None:
    """Overwrite columns of root/labels.csv; None drops one, a mapping changes single rows."""
    frame = pd.read_csv(root / "labels.csv", dtype=str, keep_default_na=False)
    for name, value in columns.items():
        if value is None:
            frame = frame.drop(columns=name)
        elif isinstance(value, dict):
            for row, cell in value.items():
                frame.loc[row, name] = cell
        else:
            frame[name] = value
    frame.to_csv(root / "labels.csv", index=False)
