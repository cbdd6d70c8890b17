"""DICOM's basic application level confidentiality profile (PS3.15 table E.1-1, edition 2026d), and what is done here.

``annex_e.csv`` has `tag, name, action`; ``xx`` stands for any even number of a repeating group, ``gggg,eeee`` for all
private attributes. Actions (table E.1-1a): X remove, Z empty, D dummy, U another UID; several: by the type of the
attribute. Taking an attribute away satisfies each of them where no DICOM object is written, and none is.
"""

from __future__ import annotations

import csv
from collections import Counter
from functools import cache
from pathlib import Path

EDITION = "2026d"
NEVER = "never passed on"
DAYS = "days from the patient's first date are passed on, the date is not"
STACKED = "tells which slices belong together; not passed on"
# What is read of the attributes of the profile, apart from the search for what leaked.
DATES = ("AcquisitionDate", "StudyDate", "SeriesDate", "ContentDate")
_READ = {
    **dict.fromkeys(("0008,0022", "0008,0020", "0008,0021", "0008,0023"), DAYS),
    **dict.fromkeys(
        (
            "0008,0018",
            "0008,0032",
            "0008,0033",
            "0010,0020",
            "0018,9074",
            "0020,000E",
            "0020,0052",
            "0020,9161",
        ),
        STACKED,
    ),
}


@cache
def profile() -> tuple[tuple[str, str, str, str], ...]:
    """(tag, name, action, what is done here) of every attribute of the profile, by tag."""
    with open(Path(__file__).with_suffix(".csv"), newline="", encoding="utf-8") as handle:
        rows = [(row["tag"], row["name"], row["action"]) for row in csv.DictReader(handle)]
    return tuple((*row, _READ.get(row[0], NEVER)) for row in rows)


@cache
def _plain() -> frozenset[int]:
    return frozenset(
        int(tag.replace(",", ""), 16) for tag, *_ in profile() if not set(tag.lower()) & set("xg")
    )


def is_listed(group: int, element: int) -> bool:
    """Whether an attribute is of the profile, private ones and repeating groups included."""
    if group % 2 or 0x5000 <= group <= 0x50FF:
        return True
    if 0x6000 <= group <= 0x60FF:
        return element in (0x3000, 0x4000)
    return (group << 16 | element) in _plain()


def summary() -> list[tuple[str, int]]:
    """What is done -> number of attributes, most frequent first."""
    return Counter(treated for *_, treated in profile()).most_common()
