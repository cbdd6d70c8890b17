"""Padding of DICOM (PS3.3 C.7.5.1.1.2): pixels around a picture that were never measured.

Their number is said by the file, often far below anything real, and no part of the picture: it would be the lowest
end of percentiles and ranges, and the brightest where MONOCHROME1 is turned over. They become the lowest real value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import uid

from fewscans.convert.headers import Header

Array = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]
# Transfer syntaxes that may lose something, where the header does not say whether they did.
_LOSSY = (
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.JPEG2000MC, uid.HTJ2K,
)  # fmt: skip


class Padding(NamedTuple):
    """Numbers that are padding: from `low` to `high`, both of them too."""

    low: float
    high: float

    def of(self, array: Array) -> Mask:
        """Which numbers of `array`, of any shape, are padding."""
        if self.low == self.high:
            return np.asarray(array == self.low)
        return np.greater_equal(array, self.low) & np.less_equal(array, self.high)


def padding_of(
    header: Header, keyword: str, dtype: np.dtype[Any]
) -> tuple[Padding | None, tuple[str, ...]]:
    """(padding among stored numbers of `dtype` in the element `keyword`, or None, notes).

    The range has its limit on either side of the value. Only gray pixels have padding. A value may be written as
    unsigned though pixels are signed, and the other way round. Lossy compression spreads a single value, so that what
    equals it is no more padding than what lies beside it: then it is left alone, as a note says.
    """
    if str(header.get("PhotometricInterpretation", "")).strip() not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        return None, ()
    kind = keyword.removesuffix("PixelData")  # "", "Float", "DoubleFloat"
    value = _number(header.get(f"{kind}PixelPaddingValue"), dtype)
    if value is None:
        return None, ()
    limit = _number(header.get(f"{kind}PixelPaddingRangeLimit"), dtype)
    if limit is None and _is_lossy(header):
        return None, ("lossy compression blurs its padding: left alone",)
    ends = (value, value if limit is None else limit)
    return Padding(min(ends), max(ends)), ()


def _is_lossy(header: Header) -> bool:
    said = str(header.get("LossyImageCompression", "") or "").strip()
    return said == "01" or (said != "00" and header.file_meta.get("TransferSyntaxUID") in _LOSSY)


def scaled(padding: Padding, slope: float, intercept: float) -> Padding:
    """`padding` where a decoder has rescaled the numbers; a quarter of a step is rounding."""
    ends = [end * slope + intercept for end in padding]
    return Padding(min(ends) - abs(slope) / 4, max(ends) + abs(slope) / 4)


def behind_table(mask: Mask, mapped: Array) -> tuple[Padding | None, tuple[str, ...]]:
    """(padding among numbers that a table made, notes), `mask` being where it was before."""
    found = mapped[mask]
    if not found.size:
        return None, ()
    low, high = float(found.min()), float(found.max())
    made = Padding(low, high)
    if np.array_equal(made.of(mapped), mask):
        return made, ()
    return None, ("padding that a table maps to real values was left alone",)


def fill_padding(
    values: Array, mask_of: Callable[[int], Mask | None], downwards: bool
) -> tuple[str, ...]:
    """Put the lowest real value of all in place of padding; a note says of how many pixels, if any changed.

    Where everything is padding nothing is changed.

    Parameters
    ----------
    values : [C, D, H, W]
        Changed in place.
    mask_of
        Plane of D -> [C, H, W], what is padding in it; asked twice, before the plane is changed.
    downwards
        Whether high stored numbers are low values.
    """
    lowest: np.generic | None = None
    padded = 0
    for k in range(values.shape[1]):
        mask = mask_of(k)
        plane = values[:, k]
        real = plane if mask is None else plane[~mask]
        if real.dtype.kind == "f":
            real = real[np.isfinite(real)]
        padded += 0 if mask is None else int(mask.sum())
        if real.size:
            ends = [real.max() if downwards else real.min()]
            ends += [] if lowest is None else [lowest]
            lowest = max(ends) if downwards else min(ends)
    if lowest is None or not padded:
        return ()
    changed = False
    for k in range(values.shape[1]):
        mask = mask_of(k)
        if mask is not None and mask.any():
            plane = values[:, k]
            changed = changed or bool((plane[mask] != lowest).any())
            plane[mask] = lowest
    if not changed:
        return ()
    return (f"padding ({100 * padded / values.size:.2g} % of it) became the lowest real value",)


def _number(value: object, dtype: np.dtype[Any]) -> float | None:
    """The number that is meant among those of `dtype`."""
    if isinstance(value, bytes):  # of unknown type
        value = int.from_bytes(value[:2], "little") if value else None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if not np.isfinite(found):
        return None
    if dtype.kind == "i" and 2**15 <= found < 2**16:
        return found - 2**16
    return found + 2**16 if dtype.kind == "u" and -(2**15) <= found < 0 else found
