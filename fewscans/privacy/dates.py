"""Dates as days from a patient's first one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

# DICOM DA and DT (PS3.5 6.2), and ISO 8601; a time behind it says nothing of the day.
_DATE = re.compile(r"(\d{4})[-.]?(\d\d)[-.]?(\d\d)(?:[T ]?\d\d:?\d\d.*|[T ]\d\d.*|\d{6}.*)?")


def day_of(text: str) -> date | None:
    """The date that `text` is, as DICOM or ISO 8601 writes it; None where it is none."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        made = date(*(int(part) for part in found.groups()[:3]))
    except ValueError:
        return None
    return made if 1850 <= made.year <= 2150 else None


def are_dates(cells: Sequence[str]) -> bool:
    """Whether every cell that is not empty is a date, and one is."""
    told = [cell for cell in cells if cell]
    return bool(told) and all(day_of(cell) is not None for cell in told)


def offsets(patients: Sequence[str], cells: Sequence[str]) -> list[int | None]:
    """Days of each cell from the first date of its patient; None where there is no date.

    A patient whom nobody knows has no first date.
    """
    days = [day_of(cell) for cell in cells]
    first: dict[str, date] = {}
    for patient, day in zip(patients, days, strict=True):
        if patient and day is not None:
            first[patient] = min(day, first.get(patient, day))
    return [
        (day - first[patient]).days if patient and day is not None else None
        for patient, day in zip(patients, days, strict=True)
    ]
