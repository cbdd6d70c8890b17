"""How many scans and patients a data set has: from its table, cohort or archive, and from what was converted.

Read while the workflow is parsed, so it is cheap: a table is read once, no file of a scan is opened. How many volumes a
folder holds, and how many slices are taken of a volume, is known once they are converted; until then a folder counts as
one volume, and slices are counted where the rule tells their number. What cannot be known cheaply is None, and then
nothing is made up.
"""

from __future__ import annotations

import ast
import json
import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fewscans.config import Config
from fewscans.config.models import DatasetSettings
from fewscans.convert.exclude import is_excluded
from fewscans.convert.rows import Row, read_rows
from fewscans.errors import UserError
from fewscans.rawdata import Place, chunks_of, resolve

# Mean of the generated cohort, planted copies included; until its table stands.
IMAGES_PER_PATIENT = 2.44


@dataclass(frozen=True)
class Counts:
    """Of one data set."""

    scans: int
    patients: int
    tested: int | None = None
    """Scans of the official test part; None where folds decide."""

    def trained(self, folds: int) -> int:
        """Scans on the training side of one of `folds` folds."""
        return self.scans - self.held_out(folds)

    def held_out(self, folds: int) -> int:
        """Scans that one of `folds` folds tests."""
        return self.tested if self.tested is not None else round(self.scans / folds)

    def labelled(self, budget: str, folds: int) -> int:
        """Labelled scans of a budget as it is written: "10" patients, "50%", "all"."""
        most = self.trained(folds)
        if budget == "all":
            return most
        if budget.endswith("%"):
            return max(2, round(most * float(budget[:-1]) / 100))
        return max(2, min(most, round(int(budget) * self.scans / max(1, self.patients))))


def count(config: Config, name: str) -> Counts | None:
    """Counts of the data set `name`; None where they cannot be had without walking through its files."""
    listed, found = _listed(config, name), _converted(config, name)
    slices = config.datasets[name].slices
    if found is not None and found[1]:
        scans, sources = found
        if listed is None:
            return Counts(scans, sources)
        if scans == sources and slices is None:
            return listed
        return _several(listed, scans / sources)
    if listed is None or slices is None:
        return listed
    # Not more than this; fewer where volumes are shorter, or no slice crosses a mask.
    return _several(listed, slices.central) if slices.central is not None else None


def _several(listed: Counts, each: float) -> Counts:
    """Counts where each row of the table is about `each` scans on average."""
    tested = None if listed.tested is None else round(listed.tested * each)
    return Counts(round(listed.scans * each), listed.patients, tested)


def _converted(config: Config, name: str) -> tuple[int, int] | None:
    """(scans, what they were listed as) of all chunks, where the last conversion left that and had the same slices."""
    slices = config.datasets[name].slices
    rule = None if slices is None else slices.model_dump()
    folder = Path(config.work, name, "converted")
    scans, sources = 0, 0
    for chunk in range(chunks_of(config, name)):
        try:
            facts = json.loads((folder / str(chunk) / "counts.json").read_text(encoding="utf-8"))
            if facts["slices"] != rule:
                return None
            scans, sources = scans + facts["scans"], sources + facts["sources"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return scans, sources


def _listed(config: Config, name: str) -> Counts | None:
    """Counts of what a table, cohort or archive lists: files, folders and volumes before they are taken apart."""
    dataset, place = config.datasets[name], resolve(config, name)
    if dataset.phantom is not None:
        made = _of_table(place, dataset)
        n = dataset.phantom.n_patients
        return made or Counts(round(n * IMAGES_PER_PATIENT), n)
    if place.npz:
        return _of_archive(place.npz, dataset.split == "official")
    return _of_table(place, dataset)


def _of_table(place: Place, dataset: DatasetSettings) -> Counts | None:
    if place.table is None:
        return None
    try:
        rows = _rows(place.table, os.stat(place.table).st_mtime_ns)
    except (OSError, UserError):  # what is wrong with it is said elsewhere, in words
        return None
    columns = dataset.columns
    kept = [row for row in rows if not is_excluded(row.get(columns.path, ""), dataset.exclude)]
    who = {row.get(columns.patient or "", "") for row in kept}
    patients = len(who) if columns.patient and who != {""} else len(kept)
    tested = None
    if dataset.split == "official":
        names = {name.lower() for name in dataset.split_names.test}
        tested = sum(row.get(columns.split, "").strip().lower() in names for row in kept)
    return Counts(len(kept), patients, tested)


@lru_cache
def _rows(table: str, changed: int) -> list[Row]:
    return read_rows(table)


def _of_archive(path: str, official: bool) -> Counts | None:
    """From the headers of an .npz, without numpy."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for part in ("train", "val", "test"):
                if f"{part}_images.npy" in archive.namelist():
                    with archive.open(f"{part}_images.npy") as handle:
                        found[part] = _length(handle.read(4096))
    except (OSError, ValueError, SyntaxError, KeyError, zipfile.BadZipFile):
        return None
    n = sum(found.values())
    return Counts(n, n, found.get("test", 0) if official else None) if n else None


def _length(head: bytes) -> int:
    """First dimension that the header of an .npy file states."""
    wide = 2 if head[6] == 1 else 4  # version 1 has a shorter length field
    size = int.from_bytes(head[8 : 8 + wide], "little")
    return int(ast.literal_eval(head[8 + wide : 8 + wide + size].decode("latin1"))["shape"][0])
