"""What the audit of one data set wrote, read together; and words that name no file and no patient."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.contracts import read_metadata, read_table
from fewscans.convert.chunks import read_converted
from fewscans.report.shots import shot

KEY = 10  # characters of a scan's key that tell it from the others


@dataclass(frozen=True)
class Audited:
    """Tables of the contracts, the index of what was converted, and a way to its pixels."""

    index: pd.DataFrame
    labels: pd.DataFrame
    duplicates: pd.DataFrame
    groups: pd.DataFrame
    findings: pd.DataFrame
    facts: dict[str, Any]
    read_pixels: Callable[[Any], npt.NDArray[np.float32]]

    @cached_property
    def usable(self) -> pd.DataFrame:
        """Labels of the scans that may be used."""
        return self.labels[self.labels["status"] == "ok"]

    @cached_property
    def _pictures(self) -> dict[str, str]:
        return {}

    def picture(self, scan: str) -> str:
        """`shot` of a scan, made once; "" where it cannot be read."""
        if scan not in self._pictures:
            row = self.rows.loc[scan]
            self._pictures[scan] = shot(self.read_pixels(row)) if row["status"] == "ok" else ""
        return self._pictures[scan]

    @property
    def n_patients(self) -> int | None:
        """Patients of the scans that may be used; None where nobody knows them."""
        known = "no-patient-ids" not in self.facts.get("flags", [])
        return int(self.usable["patient"].nunique()) if known else None

    @property
    def labelled(self) -> pd.DataFrame:
        """Those of them with a label."""
        return self.usable[self.usable["target"] != ""]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Index by scan."""
        return self.index.set_index("scan")

    def found(self, *checks: str) -> pd.DataFrame:
        """Findings of these checks."""
        return self.findings[self.findings["check"].isin(checks)]


def read_audited(
    labels: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    converted: Sequence[str | os.PathLike[str]],
) -> Audited:
    """Read labels, the tables in the audit's `folder`, and the folders of `converted` scans."""
    tables = {
        name: read_table(Path(folder, f"{name}.parquet"), name)
        for name in ("duplicates", "groups", "findings")
    }
    index, read_pixels = read_converted(converted)
    facts = read_metadata(Path(folder, "findings.parquet"))
    return Audited(
        index, read_table(labels, "labels"), **tables, facts=facts, read_pixels=read_pixels
    )


class Names:
    """What scans are called on a page: by path for those who hold the data, by key for others."""

    def __init__(self, audited: Audited, keys: bool) -> None:
        self.keys = keys
        self._path = audited.labels.set_index("scan")["path"].to_dict()
        self._key = {path: scan[:KEY] for scan, path in self._path.items()}
        quoted = audited.labels["patient"].unique().tolist()
        self._quoted = {f"'{patient}'": "(patient)" for patient in quoted}
        mentioned = set(self._key) & self._mentioned(audited.findings["message"])
        longest = sorted([*mentioned, *self._quoted], key=lambda name: (-len(name), name))
        self._any = re.compile("|".join(map(re.escape, longest))) if longest else None

    def _mentioned(self, messages: pd.Series) -> set[str]:
        """Paths that a message may hold: a message names another scan by its whole path."""
        text = "\n".join(messages)
        return {path for path in self._key if path in text}

    def scan(self, scan: str) -> str:
        """Path or key."""
        return scan[:KEY] if self.keys else str(self._path.get(scan, scan))

    def message(self, text: str) -> str:
        """`text` with paths as keys and without patients, where names are keys."""
        if not self.keys or self._any is None:
            return text
        return self._any.sub(lambda m: self._key.get(m[0]) or self._quoted[m[0]], text)
