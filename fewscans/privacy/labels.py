"""Labels of a private data set: the label table is read by what scans were called, and passed on under pseudonyms."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fewscans.config.stages import AuditParams
from fewscans.contracts import read_metadata
from fewscans.convert.table import read_labels
from fewscans.convert.values import number
from fewscans.errors import UserError
from fewscans.privacy.converted import pseudonyms_of
from fewscans.privacy.dates import are_dates, offsets
from fewscans.privacy.pseudonyms import Pseudonyms
from fewscans.privacy.table import PART, TABLE, part_path, read, table_path, write

_OURS = ("path", "label", "patient", "split", "site")
# Whole numbers from here on may be ids.
_ID = 100_000


def read_private_labels(
    params: AuditParams, index: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(index with `day`, `place` and `content`, labels), both under pseudonyms; the private table is written.

    `day` is the scan's date in days from its patient's first one, `place` its position among the patient's scans by
    natural order of the paths, `content` a digest of its pixels, or of its file where it has none.

    Raises
    ------
    UserError
        The table is wrong, or `index` was made with another key.
    """
    names = pseudonyms_of(params)
    kept = _parts(params, index, names.mark()).set_index("scan").loc[index["scan"]].reset_index()
    names_before = [name for name in ("path", "source", "volume") if name in index]
    called = index.assign(**{name: kept[name].to_numpy() for name in names_before})
    table = read_labels(params, called)
    told = table.set_index("path").reindex(kept["path"]).fillna("").astype(str)
    attributes = [name for name in table.columns if name not in _OURS]
    rows: list[dict[str, Any]] = []
    for row, said in zip(kept.to_dict("records"), told.to_dict("records"), strict=True):
        patient, site = said["patient"], said["site"]
        rows.append({
            **row, "identifiers": list(row["identifiers"]), "patient": patient, "patient_key": names.patient(patient),
            "site": site, "site_key": names.site(site),
            "attributes": json.dumps({name: said[name] for name in attributes}, ensure_ascii=False),
        })  # fmt: skip
    assert params.private is not None
    write(table_path(params.private, params.dataset), TABLE, rows)
    scan_of = dict(zip(kept["path"], kept["scan"], strict=True))
    patients = table["patient"].tolist()
    hidden = table.assign(
        path=[scan_of[path] for path in table["path"]],
        patient=[names.patient(name) for name in patients],
        site=[names.site(name) for name in table["site"]],
        **{name: _cells(names, name, table[name].tolist(), patients) for name in attributes},
    )
    whose = [row["patient"] for row in rows]
    days = offsets(whose, [row["date"] or "" for row in rows])
    pixels = index["pixel_sha256"].fillna("").tolist()
    content = [a or b or "" for a, b in zip(pixels, [row["sha256"] for row in rows], strict=True)]
    places = _places(kept["path"].tolist(), whose)
    return index.assign(day=days, place=places, content=content), hidden


def _parts(params: AuditParams, index: pd.DataFrame, mark: str) -> pd.DataFrame:
    frames = []
    assert params.private is not None
    for folder in index["folder"].drop_duplicates():
        facts = read_metadata(Path(folder, "index.parquet"))
        if facts.get("key_mark") != mark:
            raise UserError(
                f"{folder}: its pseudonyms are of another key, or it has none. Convert again: "
                "snakemake --forcerun convert"
            )
        frames.append(read(part_path(params.private, params.dataset, facts["chunk"]), PART))
    kept = pd.concat(frames, ignore_index=True)
    if lost := len(set(index["scan"]) - set(kept["scan"])):
        raise UserError(
            f"data set {params.dataset}: {lost} scans are not in the private table. Convert again."
        )
    return kept


def _cells(
    names: Pseudonyms, attribute: str, cells: Sequence[str], patients: Sequence[str]
) -> list[str]:
    """Dates as days, numbers as they are unless they may be ids, everything else as pseudonyms."""
    if are_dates(cells):
        days = offsets(patients, cells)
        return ["" if day is None else str(day) for day in days]
    values = [number(cell) for cell in cells if cell]
    if values and all(value is not None and abs(value) < _ID for value in values):
        return list(cells)
    return [names.value(attribute, cell) for cell in cells]


def _places(paths: Sequence[str], patients: Sequence[str]) -> list[int]:
    """Position of each path among its patient's, numbers in names read as numbers: slice 2 before slice 10."""
    keys = [[int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path)] for path in paths]
    seen: dict[str, int] = {}
    places = [0] * len(paths)
    for i in sorted(range(len(paths)), key=lambda i: keys[i]):
        places[i] = seen.get(patients[i], 0)
        seen[patients[i]] = places[i] + 1
    return places
