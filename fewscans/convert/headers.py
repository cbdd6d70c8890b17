"""DICOM headers: parsed once, and what several files say alike is converted once; pixels are read behind them."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset as read_elements
from pydicom.multival import MultiValue

from fewscans.convert import Unreadable
from fewscans.convert.deflated import PIXEL_TAGS, Stream, parse

_SIGNED = 0x00280103
# Headers that are kept, some 40 KB each. Files of a folder with more are parsed twice.
_KEPT = 512
# Values that are kept, and how long one may be in bytes.
_VALUES: dict[Any, Any] = {}
_MOST_VALUES, _LONGEST = 4096, 256
# Bytes that are unpacked at most, and so many more than rows, columns and frames need: what follows the pixels.
_MOST_BYTES, _MOST_BEYOND = 2**29, 2**24


class Header:
    """What a file says before its pixels, by keyword.

    The slices of a series say nearly all the same. A value is converted by pydicom where its bytes are met first, and
    then found again by them; so it must not be changed.

    Attributes
    ----------
    dataset
        The same as pydicom has it, without pixels.
    pixels_at
        Byte at which the element with the pixels begins, of what is unpacked where the file is; -1 without one.
    packed_at
        Byte at which the file is packed from; -1 where it is not.
    """

    def __init__(self, dataset: Any, pixels_at: int, packed_at: int) -> None:
        self.dataset = dataset
        self.pixels_at = pixels_at
        self.packed_at = packed_at
        self._elements = {int(tag): element for tag, element in dataset.items()}
        # What decides, beside its own bytes, what an element means.
        signed = self._elements.get(_SIGNED)
        letters = dataset.original_character_set
        self._reading = (
            dataset.original_encoding,
            letters if isinstance(letters, str) else tuple(letters),
            signed and bytes(signed.value or b""),
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Value of the element `name`; `default` where there is none."""
        tag = _tag(name)
        element = self._elements.get(tag)
        return default if element is None else self._value(tag, element)

    def __contains__(self, name: str) -> bool:
        return _tag(name) in self._elements

    @property
    def has_pixels(self) -> bool:
        """Whether there is an element with pixels."""
        return self.pixels_at >= 0

    @property
    def groups(self) -> set[int]:
        """Numbers of the groups that there are."""
        return {tag >> 16 for tag in self._elements}

    @property
    def file_meta(self) -> Any:
        """Of the file itself: transfer syntax, kind of object."""
        return self.dataset.file_meta

    def _value(self, tag: int, element: Any) -> Any:
        raw = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
        # A private element means what its creator says, which stands elsewhere.
        if not raw or len(element.value) > _LONGEST or tag >> 16 & 1:
            return self.dataset[tag].value
        key = (tag, element.VR, element.value, self._reading)
        if key not in _VALUES:
            value = self.dataset[tag].value
            if not isinstance(value, str | int | float | MultiValue):
                return value
            if len(_VALUES) >= _MOST_VALUES:
                _VALUES.clear()
            _VALUES[key] = value
        return _VALUES[key]


class Pixels(NamedTuple):
    """An element with pixels, as it stands in the file."""

    keyword: str
    vr: str
    data: bytes


def read_header(path: Path) -> Header:
    """All that comes before the pixels, with or without preamble.

    Raises
    ------
    Unreadable
        It is no DICOM.
    """
    return _parsed(path, path.stat().st_mtime_ns)


def read_pixels(path: Path, header: Header) -> Pixels:
    """The pixels of the file that `header` is of, not decoded.

    Raises
    ------
    Unreadable
        There are none, or several kinds of them; they were packed, and are far more than the header says, or damaged.
    """
    if not header.has_pixels:
        raise Unreadable("holds no image", "set-aside")
    # What says nothing of its encoding is little endian.
    implicit, little = header.dataset.original_encoding
    with open(path, "rb") as handle:
        if header.packed_at < 0:
            handle.seek(header.pixels_at)
            behind = read_elements(handle, bool(implicit), little is not False)
        else:
            stream = Stream(handle, header.packed_at, header.pixels_at + _bytes_of_pixels(header))
            stream.seek(header.pixels_at)
            # What follows them may be millions of elements.
            behind = read_elements(cast(Any, stream), False, True, stop_when=_is_no_pixels)
            stream.finish()
    found = [tag for tag in PIXEL_TAGS if tag in behind]
    if len(found) != 1:
        raise Unreadable("pixels cannot be decoded (there are several kinds of them)")
    element = behind.get_item(found[0])
    return Pixels(PIXEL_TAGS[found[0]], str(element.VR or "OW"), element.value or b"")


def _is_no_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) not in PIXEL_TAGS


def _bytes_of_pixels(header: Header) -> int:
    """Bytes of pixels as the header says, and some more."""
    names = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
    try:
        rows, columns, frames, samples, bits = (int(header.get(name) or 1) for name in names)
    except (TypeError, ValueError):
        raise Unreadable("its size or number of frames is not a number") from None
    n_bytes = -(-rows * columns * max(1, frames) * samples * bits // 8)
    if n_bytes > _MOST_BYTES:
        most = f"more than the {_MOST_BYTES // 2**20} MB that are unpacked"
        raise Unreadable(f"{n_bytes // 2**20} MB of pixels, deflated: {most}", "set-aside")
    return n_bytes + _MOST_BEYOND


@cache
def _tag(name: str) -> int:
    tag = tag_for_keyword(name)
    assert tag is not None, name
    return tag


@lru_cache(maxsize=_KEPT)
def _parsed(path: Path, changed: int) -> Header:
    """`changed` makes a new file a new one."""
    found: list[int] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in PIXEL_TAGS:
            found.append(int(tag))
        return bool(found)

    try:
        dataset, at, packed_at = parse(path, at_pixels)
    except InvalidDicomError:
        # No preamble: some old archives leave it out.
        dataset, at, packed_at = parse(path, at_pixels, force=True)
        if not any(tag.group == 8 for tag in dataset.keys()):  # noqa: SIM118
            raise Unreadable("not an image, or DICOM whose header is damaged", format="") from None
    return Header(dataset, at if found else -1, packed_at)
