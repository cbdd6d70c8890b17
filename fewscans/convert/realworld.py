"""Real world values of DICOM (PS3.3 C.7.6.16.2.11): straight lines or tables from stored numbers to a unit.

They start from the stored number, as the modality transformation does, so a value has the one or the other, never
both. A modality transformation that names its unit (HU, or a Rescale Type) goes first: there is one of it, viewers
show it, and windows in HU rest on it. A transformation without a unit says only how the numbers are spread (MR); there
the real world mapping, which has a unit by definition, is what the values mean.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fewscans.convert.headers import Header

_SEQUENCE = "RealWorldValueMappingSequence"
_HU = "[hnsf'U]"  # UCUM
_LEFT_OUT = "a real world mapping that leaves out some of the pixels was not used"


class Line(NamedTuple):
    """``stored * slope + intercept`` in a unit."""

    slope: float
    intercept: float
    unit: str


class Table(NamedTuple):
    """Value in a unit of each stored number from `first` on."""

    first: int
    values: npt.NDArray[np.float64]
    unit: str

    def of(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Values of whole numbers that are all in the table, any shape."""
        return self.values[stored.astype(np.int64) - self.first].astype(np.float32)


def real_world(
    header: Header, array: npt.NDArray[np.generic], frame: int
) -> tuple[Line | Table | None, tuple[str, ...]]:
    """(mapping of a frame whose stored pixels, without padding, are `array`, or None, notes).

    None where there is no mapping, several (which one is meant is the reader's choice), neither line nor whole table,
    no unit, or pixels that it does not reach; a note says which.
    """
    items = _mappings(header, frame)
    if not items:
        return None, ()
    if len(items) > 1:
        return None, (f"{len(items)} real world mappings: none was used",)
    unit = _unit(items[0])
    slope, intercept = (
        _number(items[0].get(f"RealWorldValue{name}")) for name in ("Slope", "Intercept")
    )
    data = items[0].get("RealWorldValueLUTData")
    is_line = slope is not None and intercept is not None and slope != 0
    if not is_line and data is None:
        return None, ("a real world mapping without line or table was not used",)
    if not unit:
        return None, ("a real world mapping without a unit was not used",)
    low, high = (_end(items[0], name, array) for name in ("First", "Last"))
    if (low is not None and array.min() < low) or (high is not None and array.max() > high):
        return None, (_LEFT_OUT,)
    if slope and intercept is not None:
        return Line(slope, intercept, unit), (f"values in {unit}, by a real world mapping",)
    table = _table(data, low, high, array)
    if table is None:
        return None, ("a real world mapping whose table is not whole was not used",)
    return Table(*table, unit), (f"values in {unit}, by the table of a real world mapping",)


def _table(
    data: Any, low: float | None, high: float | None, array: npt.NDArray[np.generic]
) -> tuple[int, npt.NDArray[np.float64]] | None:
    """(first stored number, value of each), None where they are not those of all numbers from `low` to `high`."""
    if low is None or high is None or array.dtype.kind not in "iu":
        return None
    if not (low.is_integer() and high.is_integer()):
        return None
    try:
        values = np.atleast_1d(np.asarray(data, np.float64))
    except (TypeError, ValueError):
        return None
    if values.shape != (int(high) - int(low) + 1,) or not np.isfinite(values).all():
        return None
    return int(low), values


def _mappings(header: Header, frame: int) -> list[Any]:
    """Mappings of a frame: its own, else those of all frames, else those of the header."""
    for groups, number in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        for item in (header.get(groups) or [])[number : number + 1]:
            if item.get(_SEQUENCE):
                return list(item.get(_SEQUENCE))
    return list(header.get(_SEQUENCE) or [])


def _unit(item: Any) -> str:
    """UCUM code of the unit, HU as we write it; "" where it is none."""
    codes = item.get("MeasurementUnitsCodeSequence") or []
    code = str(codes[0].get("CodeValue", "")) if codes else ""
    if code == "1":  # "no units" (UCUM): no more than a rescale without one says
        return ""
    return "HU" if code == _HU else code if re.fullmatch(r"[\w\[\]/.'{}%^*+-]{1,16}", code) else ""


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _end(item: Any, which: str, array: npt.NDArray[np.generic]) -> float | None:
    """First or last stored number that is mapped; None where it is not said."""
    found = _number(item.get(f"DoubleFloatRealWorldValue{which}ValueMapped"))
    whole = _number(item.get(f"RealWorldValue{which}ValueMapped"))
    if whole is not None and array.dtype.kind == "i" and whole > 32767:
        whole -= 65536  # written as unsigned, as implicit VR leaves it open
    return whole if found is None else found
