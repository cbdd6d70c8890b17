"""Real world values of DICOM (PS3.3 C.7.6.16.2.11): straight lines from stored numbers to a unit.

They start from the stored number, as the modality transformation does, so a value has the one or the other, never
both. A modality transformation that names its unit (HU, or a Rescale Type) goes first: there is one of it, viewers
show it, and windows in HU rest on it. A transformation without a unit says only how the numbers are spread (MR); there
the real world mapping, which has a unit by definition, is what the values mean.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fewscans.convert.headers import Header

_SEQUENCE = "RealWorldValueMappingSequence"
_HU = "[hnsf'U]"  # UCUM


def real_world(
    header: Header, array: npt.NDArray[np.generic], frame: int
) -> tuple[tuple[float, float, str] | None, tuple[str, ...]]:
    """((slope, intercept, unit) of a frame whose stored pixels are `array`, or None, notes).

    None where there is no mapping, several (which one is meant is the reader's choice), a table in place of a line, no
    unit, or pixels that it does not reach; a note says which.
    """
    items = _mappings(header, frame)
    if not items:
        return None, ()
    if len(items) > 1:
        return None, (f"{len(items)} real world mappings: none was used",)
    slope, intercept = (
        _number(items[0].get(f"RealWorldValue{name}")) for name in ("Slope", "Intercept")
    )
    unit = _unit(items[0])
    if slope is None or intercept is None or not slope:
        return None, ("a real world mapping that is no straight line was not used",)
    if not unit:
        return None, ("a real world mapping without a unit was not used",)
    low, high = (_end(items[0], name, array) for name in ("First", "Last"))
    if (low is not None and array.min() < low) or (high is not None and array.max() > high):
        return None, ("a real world mapping that leaves out some of the pixels was not used",)
    return (slope, intercept, unit), (f"values in {unit}, by a real world mapping",)


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
