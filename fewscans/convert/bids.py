"""BIDS: scans by the entities of their names, labels by participant and session, sidecars by inheritance.

Rows are made of `sub-LABEL/[ses-LABEL/]DATATYPE/sub-LABEL[_ENTITY-LABEL...]_SUFFIX.EXT` (BIDS 1.10, "File name
structure"); `derivatives`, `sourcedata`, `code` and whatever else lies in the root are no scans. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewscans.convert.kinds import endings
from fewscans.convert.layouts import Row
from fewscans.convert.paths import count, shown
from fewscans.errors import Problems

_ENDS = endings("NIfTI", "PNG", "JPEG", "TIFF")
_ENTITIES = {"ses": "session", "acq": "acquisition", "run": "run", "task": "task", "echo": "echo"}
# Of a sidecar so much becomes columns: how a scan was made, and nothing of whom, when or where.
_KEPT = (
    "Modality", "Manufacturer", "ManufacturersModelName", "MagneticFieldStrength", "RepetitionTime", "EchoTime",
    "InversionTime", "FlipAngle", "SliceThickness",
)  # fmt: skip
_MISSING = "n/a"


@dataclass(frozen=True)
class _Name:
    """A file name in its parts."""

    entities: dict[str, str]
    suffix: str
    end: str


def bids_rows(root: Path, table: Sequence[Row], name: str) -> list[Row]:
    """A row per scan: path, patient, label, entities, what sidecars say, and the columns of `table`.

    `table` has `participant_id`, and `session_id` where rows are of visits; `name` is what it is called. Columns of
    `sub-LABEL/sub-LABEL_sessions.tsv` are added where the table has none of their name.

    Raises
    ------
    UserError
        No scan; two rows of one participant or visit; no row of a participant that is there; sidecars that cannot be
        read, or two for one scan at one level.
    """
    problems = Problems(name)
    sidecars = _Sidecars(root, problems)
    visits = _sessions(root, problems)
    said = _by_participant(table, problems)
    columns = list(dict.fromkeys(c for row in (*said.values(), *visits.values()) for c in row))
    rows = []
    for path, parts in _scans(root):
        patient, session = f"sub-{parts.entities['sub']}", parts.entities.get("ses", "")
        row = {
            "path": path,
            "patient": patient,
            "label": "",
            "datatype": path.split("/")[-2],
            "suffix": parts.suffix,
        }
        row |= {ours: parts.entities.get(theirs, "") for theirs, ours in _ENTITIES.items()}
        row |= sidecars.of(path, parts)
        row |= dict.fromkeys((c for c in columns if c not in row), "")
        row |= visits.get((patient, session), {})
        row |= said.get((patient, ""), {}) | said.get((patient, session), {})
        rows.append(row)
    if not rows:
        problems.add(
            "root", f"no scan in {root}: sub-01/anat/sub-01_T1w.nii.gz is how BIDS names one."
        )
    elif said and not {row["patient"] for row in rows} & {patient for patient, _ in said}:
        problems.add(
            "participant_id",
            f"no row is of a participant of the folder, such as {rows[0]['patient']!r}.",
        )
    problems.raise_if_any()
    return rows


def _scans(root: Path) -> Iterator[tuple[str, _Name]]:
    """(path, its parts) of every scan, sorted."""
    for folder in sorted(root.glob("sub-*/*/")) + sorted(root.glob("sub-*/ses-*/*/")):
        inside = folder.relative_to(root).parts
        if folder.name.startswith("ses-"):
            continue
        for file in sorted(os.listdir(folder)):
            parts = _parts(file)
            if parts is None or parts.end not in _ENDS or "sub" not in parts.entities:
                continue
            folders = [f"{key}-{parts.entities.get(key)}" for key in ("sub", "ses")][
                : len(inside) - 1
            ]
            if list(inside[:-1]) == folders:
                yield "/".join((*inside, file)), parts


def _parts(file: str) -> _Name | None:
    stem, dot, end = file.partition(".")
    *pairs, suffix = stem.split("_")
    found = [re.fullmatch(r"([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)", pair) for pair in pairs]
    if not dot or not suffix.isalnum() or not all(found):
        return None
    return _Name({pair[1]: pair[2] for pair in found if pair}, suffix, f".{end}")


class _Sidecars:
    """What `.json` files say of scans: those of its suffix without an entity that it has not; the nearest wins."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self.root, self.problems = root, problems
        self._in: dict[str, list[tuple[str, _Name]]] = {}
        self._read: dict[str, dict[str, Any]] = {}

    def of(self, path: str, parts: _Name) -> Row:
        """Columns of a scan; "" where nothing is said."""
        found: dict[str, Any] = {}
        steps = path.split("/")[:-1]
        for depth in range(len(steps) + 1):
            folder = "/".join(steps[:depth])
            fit = [
                name for name, one in self._there(folder)
                if one.suffix == parts.suffix and one.entities.items() <= parts.entities.items()
            ]  # fmt: skip
            if len(fit) > 1:
                self.problems.add(
                    path, f"two sidecars at one level: {', '.join(fit)}. BIDS allows one."
                )
            for name in fit[:1]:
                found |= self._said(f"{folder}/{name}" if folder else name)
        cells = {key: found.get(key) for key in _KEPT}
        return {
            key: str(cell) if isinstance(cell, str | int | float) else ""
            for key, cell in cells.items()
        }

    def _there(self, folder: str) -> list[tuple[str, _Name]]:
        if folder not in self._in:
            names = sorted(
                name for name in os.listdir(self.root / folder) if name.endswith(".json")
            )
            parts = [(name, _parts(name)) for name in names]
            self._in[folder] = [(name, one) for name, one in parts if one is not None]
        return self._in[folder]

    def _said(self, path: str) -> dict[str, Any]:
        if path not in self._read:
            try:
                found = json.loads((self.root / path).read_text(encoding="utf-8-sig"))
            except (OSError, ValueError, RecursionError) as error:
                self.problems.add(path, f"cannot be read as JSON ({error}). Correct it.")
                found = {}
            self._read[path] = found if isinstance(found, dict) else {}
        return self._read[path]


def _sessions(root: Path, problems: Problems) -> dict[tuple[str, str], Row]:
    """(participant, session) -> columns of the sessions files."""
    from fewscans.convert.rows import read_table

    found: dict[tuple[str, str], Row] = {}
    for path in sorted(root.glob("sub-*/sub-*_sessions.tsv")):
        for row in read_table(path):
            if "session_id" not in row:
                problems.add(path.name, "has no column 'session_id'.")
                break
            key = (path.parent.name, row["session_id"].strip().removeprefix("ses-"))
            found[key] = _cells(row, "session_id")
    return found


def _by_participant(table: Sequence[Row], problems: Problems) -> dict[tuple[str, str], Row]:
    """(participant, session or "") -> columns of the table."""
    found: dict[tuple[str, str], Row] = {}
    doubled: defaultdict[str, int] = defaultdict(int)
    for row in table:
        patient = f"sub-{row['participant_id'].strip().removeprefix('sub-')}"
        session = row.get("session_id", "").strip().removeprefix("ses-")
        key = (patient, "" if session == _MISSING else session)
        cells = _cells(row, "participant_id", "session_id")
        if found.setdefault(key, cells) != cells:
            doubled[" ".join(key).strip()] += 1
    if doubled:
        by_visit = bool(table) and "session_id" in table[0]
        way = "" if by_visit else " Name the visit in a column 'session_id'."
        which = f"{count(list(doubled), 'participant')} with two rows that differ"
        problems.add("participant_id", f"{which}.{way}{shown(list(doubled))}")
    return found


def _cells(row: Row, *keys: str) -> Row:
    left_out = {*keys, "path", "patient", "session"}
    return {
        name: "" if cell.strip() == _MISSING else cell
        for name, cell in row.items()
        if name not in left_out
    }
