"""The Medical Segmentation Decathlon's `dataset.json`: which images there are, and which label map is of which.

Standard library only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewscans.convert.kinds import endings
from fewscans.convert.layouts import DECATHLON, Row, is_decathlon, read_json
from fewscans.convert.paths import count, shown
from fewscans.errors import Problems

_PARTS = {"training": ("train", "numTraining"), "test": ("test", "numTest")}
_ENDS = endings("NIfTI", "NRRD", "MHA")
# Names of modalities that may stand in notes of a private data set: what a file says is not passed on.
KNOWN = "FLAIR T1 T1w t1gd T1ce T1c T2 T2w ADC DWI PD PET CT MR MRI SWI"


def decathlon_rows(path: Path, table: Sequence[Row], name: str) -> list[Row]:
    """A row per image: path, patient (its name without ending), split, mask (its label map), modality, label, `table`.

    The file has label maps and no classes; these come from a `table` with the columns patient and label, called `name`.

    Raises
    ------
    UserError
        Lists that are missing or of another length than the file says; images without a name; two rows of one patient;
        no row of a patient that is there.
    """
    said = read_json(path)
    problems = Problems(str(path))
    modality = said.get("modality")
    words = (
        " ".join(str(word) for word in modality.values())
        if isinstance(modality, dict)
        else str(modality)
    )
    rows: list[Row] = []
    for key, (part, number) in _PARTS.items():
        listed = said.get(key, [])
        if not isinstance(listed, list):
            problems.add(key, "a list of images is needed.")
            continue
        if said.get(number, len(listed)) != len(listed):
            problems.add(
                number,
                f"says {said[number]!r}, and '{key}' lists {len(listed)}. Correct the one or the other.",
            )
        made = [(_image(one), _mask(one)) for one in listed]
        lost = [repr(one)[:60] for one, (image, _) in zip(listed, made, strict=True) if not image]
        if lost:
            problems.add(key, f"{count(lost, 'line')} without an image:{shown(lost)}")
        rows += [
            {"path": image, "patient": _patient(image), "label": "", "split": part, "mask": mask, "modality": words}
            for image, mask in made if image
        ]  # fmt: skip
    if not rows:
        problems.add("training", "lists no image.")
    joined = _by_patient(table, problems, name)
    if joined and not joined.keys() & {row["patient"] for row in rows}:
        problems.add(
            "patient",
            f"no row of {name} is of an image's name, such as {rows[0]['patient'] if rows else ''!r}.",
        )
    problems.raise_if_any()
    empty = dict.fromkeys(table[0] if table else (), "")
    return [{**empty, **row, **joined.get(row["patient"], {})} for row in rows]


def modalities(table: str) -> tuple[str, ...]:
    """Names of the volumes in each image of the data set that a table belongs to; nothing where it is no Decathlon."""
    path = Path(table).with_name(DECATHLON)
    try:
        return _modalities(path, path.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=4)
def _modalities(path: Path, changed: int) -> tuple[str, ...]:
    said = read_json(path).get("modality") if is_decathlon(path) else None
    if not isinstance(said, dict) or not all(key.isdecimal() for key in said):
        return ()
    return tuple(" ".join(str(said[key]).split())[:40] for key in sorted(said, key=int))


def _image(entry: Any) -> str:
    named = entry.get("image") if isinstance(entry, dict) else entry
    return posixpath.normpath(named) if isinstance(named, str) and named.strip() else ""


def _mask(entry: Any) -> str:
    named = entry.get("label") if isinstance(entry, dict) else None
    return posixpath.normpath(named) if isinstance(named, str) and named.strip() else ""


def _patient(path: str) -> str:
    name = posixpath.basename(path)
    return next((name[: -len(end)] for end in _ENDS if name.endswith(end)), name)


def _by_patient(table: Sequence[Row], problems: Problems, name: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    differing: dict[str, None] = {}
    for row in table:
        cells = {column: cell for column, cell in row.items() if column != "patient"}
        if found.setdefault(row["patient"].strip(), cells) != cells:
            differing[row["patient"].strip()] = None
    if differing:
        problems.add(
            "patient",
            f"{count(list(differing), 'patient')} with two rows in {name}:{shown(list(differing))}",
        )
    return found
