"""DICOM headers that are parsed once: a series is sorted by them, and its pixels are read behind them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset as read_elements
from pydicom.filereader import read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fewscans.convert import Unreadable
from fewscans.convert.dicom import read_dataset

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}  # fmt: skip
# Headers that are kept, some 40 KB each. Files of a folder with more are parsed twice.
_KEPT = 512


def read_header(path: Path) -> Dataset:
    """All that comes before the pixels; whether there are any is marked by an empty element.

    Raises
    ------
    Unreadable
        It is no DICOM.
    """
    return _parsed(path, path.stat().st_mtime_ns)[0]


def read_whole(path: Path) -> Dataset:
    """The whole file, its header as `read_header` has it."""
    header, pixels_at = _parsed(path, path.stat().st_mtime_ns)
    if pixels_at < 0:
        return read_dataset(path)
    # As in the header; what says nothing is little endian.
    implicit, little = bool(header.original_encoding[0]), header.original_encoding[1] is not False
    with open(path, "rb") as handle:
        handle.seek(pixels_at)
        behind = read_elements(handle, implicit, little)
    elements = {tag: element for tag, element in header.items() if int(tag) not in _PIXEL_TAGS}
    elements |= dict(behind.items())
    whole = FileDataset(str(path), elements, header.preamble, header.file_meta, implicit, little)
    whole.set_original_encoding(implicit, little, header.original_character_set)
    return whole


@lru_cache(maxsize=_KEPT)
def _parsed(path: Path, changed: int) -> tuple[Any, int]:
    """(header, byte at which the pixels begin, or -1 where they can't be read from there).

    `changed` makes a new file a new one.
    """
    found: list[int] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in _PIXEL_TAGS:
            found.append(int(tag))
        return bool(found)

    with open(path, "rb") as handle:
        try:
            dataset = read_partial(handle, at_pixels)
        except InvalidDicomError:
            handle.seek(0)
            dataset = read_partial(handle, at_pixels, force=True)
            if not any(tag.group == 8 for tag in dataset):
                raise Unreadable(
                    "not an image, or DICOM whose header is damaged", format=""
                ) from None
        at = handle.tell()
    for tag in found:
        setattr(dataset, _PIXEL_TAGS[tag], b"")
    # A deflated file was unpacked in memory: its pixels are at no byte of it, and all of it would be kept.
    dataset.buffer = None
    plain = dataset.file_meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian
    return dataset, at if found and plain else -1
