"""What is known of training scans beside their pixels: whose they are, where they lie, what they show, their values.

Read only where a method asks for it, so that a corrected label retrains no encoder that never saw one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans.config.values import Tables
from fewscans.contracts import read_metadata, read_table
from fewscans.errors import UserError
from fewscans.privacy.files import words_kept
from fewscans.privacy.table import TABLE
from fewscans.privacy.table import read as read_private
from fewscans.values import Values, read_all

Companion = Literal["patient", "neighbour"]


@dataclass(frozen=True)
class Known:
    """Facts of N scans.

    Attributes
    ----------
    patient
        int64 [N]; equal numbers are one patient.
    place
        int64 [N]; a scan's position among its patient's, by natural order of the paths (slice 2 before slice 10).
    target
        int64 [N]; index into `classes`, -1 where there is no label that may be seen.
    classes
        Names of classes, sorted.
    values
        Tables of values.
    """

    patient: NDArray[np.int64]
    place: NDArray[np.int64]
    target: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    values: tuple[Values, ...] = ()

    @classmethod
    def nothing(cls, n: int) -> Known:
        """Each scan a patient of its own, no labels."""
        none = np.full(n, -1, dtype=np.int64)
        return cls(np.arange(n, dtype=np.int64), np.zeros(n, dtype=np.int64), none)

    def identity(self) -> dict[str, Any]:
        """All of it, as JSON; rows are in the order of the scans."""
        made = {
            "patient": self.patient.tolist(), "place": self.place.tolist(), "target": self.target.tolist(),
            "classes": list(self.classes),
        }  # fmt: skip
        return made | ({"values": [one.identity() for one in self.values]} if self.values else {})

    def companions(
        self, rows: NDArray[np.int64], kind: Companion, u: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Row [B] of another scan of the same patient for each of `rows` [B]; a scan without others is its own.

        Parameters
        ----------
        kind
            ``patient``: any other scan of the patient. ``neighbour``: the one before or after it.
        u
            Numbers [B] in [0, 1) that choose among them.
        """
        # Patients lie together, each in the order of places.
        order = np.lexsort((self.place, self.patient))
        first = np.searchsorted(self.patient[order], self.patient, side="left")
        count = np.searchsorted(self.patient[order], self.patient, side="right") - first
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        position -= first
        first, count, position = first[rows], count[rows], position[rows]
        if kind == "patient":
            chosen = np.floor(u * (count - 1)).astype(np.int64)
            chosen += chosen >= position
        else:
            step = np.where(u < 0.5, -1, 1)
            outside = (position + step < 0) | (position + step >= count)
            chosen = position + np.where(outside, -step, step)
        return np.where(count > 1, order[first + np.where(count > 1, chosen, 0)], rows)


def read_known(
    wants: Collection[str],
    scans: list[str],
    labelled: Collection[str],
    labels: Mapping[str, Path],
    dataset: str,
    values: Tables | None = None,
    tables: Sequence[str] | None = None,
) -> Known:
    """What `wants` (``patient``, ``target``, ``values``) names of `scans`, in their order.

    Parameters
    ----------
    labelled
        Scans whose labels may be seen: those of the training fold of `dataset`.
    labels
        Data set -> its labels.parquet, for `dataset` and its pools. Where patients and paths in it are pseudonyms,
        values are found by what they were called: it names its private table.
    values, tables
        Tables of values by data set and name, and which names are wanted; all of `dataset` without it.

    Raises
    ------
    UserError
        A table is missing, or scans are in none; or something is wrong with values.
    """
    if not wants:
        return Known.nothing(len(scans))
    if dataset not in labels:
        raise UserError(
            f"this method needs to know {' and '.join(sorted(wants))} of each scan: give --labels {dataset}=..."
        )
    parts = []
    for name, path in labels.items():
        table = read_table(path, "labels")
        columns = ["scan", "path", "patient", "target", "status"]
        parts.append(
            table[[*columns, *(["place"] if "place" in table else [])]].assign(dataset=name)
        )
    table = pd.concat(parts, ignore_index=True).drop_duplicates("scan").set_index("scan")
    lost = [scan for scan in scans if scan not in table.index]
    if lost:
        raise UserError(
            f"{len(lost)} training scans stand in no table of --labels ({lost[0]}, ...). Give one for {dataset} and"
            " for each pool."
        )
    rows = table.loc[scans]
    # Two data sets may call different patients the same.
    patient = pd.factorize(rows["dataset"] + "\n" + rows["patient"])[0].astype(np.int64)
    seen = rows.index.isin(labelled) & (rows["dataset"] == dataset) & (rows["status"] == "ok")
    target = rows["target"].where(seen & ("target" in wants), "")
    classes = tuple(sorted(set(target) - {""}))
    codes = {name: code for code, name in enumerate(classes)}
    return Known(
        patient,
        _places(_orders(rows), patient),
        np.array([codes.get(name, -1) for name in target], dtype=np.int64),
        classes,
        _values(rows, labels, values or {}, dataset, tables) if "values" in wants else (),
    )


def _orders(rows: pd.DataFrame) -> list[str]:
    """What puts scans of a patient in order: their paths, or where these are pseudonyms, their place."""
    place = rows["place"] if "place" in rows else pd.Series(np.nan, index=rows.index)
    paths = zip(rows["path"], place, strict=True)
    return [path if at != at or at is None else str(int(at)) for path, at in paths]


def _values(
    rows: pd.DataFrame,
    labels: Mapping[str, Path],
    values: Tables,
    dataset: str,
    tables: Sequence[str] | None,
) -> tuple[Values, ...]:
    """Values of the scans in `rows`, found by what their patients and files were called."""
    rows, folder = rows.copy(), None
    for name, path in labels.items():
        where = read_metadata(path).get("private")
        if where is None:
            continue
        folder = str(Path(where).parent)
        told = read_private(Path(where), TABLE).set_index("scan")
        own = (rows["dataset"] == name).to_numpy(bool)
        for column in ("path", "patient"):
            rows.loc[own, column] = told.loc[rows.index[own], column].to_numpy()
    with words_kept(folder, dataset, "values"):
        return read_all(rows, values, dataset, tables)


def _places(paths: list[str], patient: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position [N] of each path among those of its patient, numbers in names read as numbers."""
    keys = [
        [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p)] for p in paths
    ]
    order = sorted(range(len(paths)), key=lambda i: (patient[i], keys[i]))
    place = np.zeros(len(paths), dtype=np.int64)
    last, n = -1, 0
    for i in order:
        n = n + 1 if patient[i] == last else 0
        last, place[i] = patient[i], n
    return place
