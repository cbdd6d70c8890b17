"""What a scan's file says beside its pixels: a few items that are passed on once checked, and what must not leak."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewscans.convert import Unreadable, kind_of
from fewscans.privacy.allowed import maker_of, modality_of
from fewscans.privacy.annex_e import DATES, is_listed

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

# Text of this length and more is looked for; a shorter one is found everywhere.
SHORTEST = 4
_LONGEST = 200
# UIDs of the standard itself name nobody.
_STANDARD_UID = "1.2.840.10008."
# Of what is in a sequence of the profile: text, dates, UIDs. Numbers, terms (CS), times and pixels stand everywhere.
_TEXT_VR = frozenset({"AE", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"})
# What names an entry of a coding scheme, and not who has it: code value, designator, version, long code value.
_OF_A_CODE = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080119})
# Codes that say what is asked, or in what unit, and not what the answer is: concept name, purpose of reference, units.
_ASKED = frozenset({0x0040A043, 0x0040A170, 0x004008EA})
_RUN = re.compile(rb"[\x20-\x7e\x80-\xff]{4,}")
_NIFTI_TEXT = ("descrip", "aux_file", "intent_name", "db_name")


@dataclass(frozen=True)
class Header:
    """Of one file.

    Attributes
    ----------
    modality, manufacturer
        Checked.
    date
        When it was acquired, as the file says; never passed on.
    burned_in
        What BurnedInAnnotation says: ``YES``, ``NO`` or nothing.
    classes
        SOP class and image type, for those who ask what kind of picture it is.
    body
        Body part, for those who ask whether it shows a head.
    identifiers
        Text that must not leak.
    """

    modality: str = ""
    manufacturer: str = ""
    date: str = ""
    burned_in: str = ""
    classes: tuple[str, ...] = ()
    body: str = ""
    identifiers: tuple[str, ...] = ()


def read_header(path: Path, identifiers: bool = True) -> Header:
    """What the file `path` says; nothing where it cannot be read. `identifiers`: whether they are looked for."""
    try:
        kind = kind_of(path)
    except (Unreadable, OSError):
        kind = ""
    if kind != "DICOM" and not identifiers:
        return Header()
    # Damaged headers raise anything; what they say is then not known, and not passed on either.
    with contextlib.suppress(Exception):
        if kind == "DICOM":
            return _dicom(path, identifiers)
        if kind == "NIFTI":
            return Header(identifiers=_unique(_nifti(path)) if identifiers else ())
        if kind:
            return Header(identifiers=_unique(_image(path)) if identifiers else ())
    return Header()


def _dicom(path: Path, identifiers: bool) -> Header:
    from fewscans.convert.deflated import PIXEL_TAGS, parse
    from fewscans.convert.quiet import quiet

    with quiet():
        dataset = parse(path, lambda tag, vr, length: int(tag) in PIXEL_TAGS, force=True).dataset
        image_type = [str(word) for word in dataset.get("ImageType") or []]
        return Header(
            modality_of(str(dataset.get("Modality") or "")),
            maker_of(str(dataset.get("Manufacturer") or "")),
            next((str(dataset.get(name)) for name in DATES if dataset.get(name)), ""),
            str(dataset.get("BurnedInAnnotation") or "").strip().upper(),
            (str(dataset.get("SOPClassUID") or ""), *image_type),
            " ".join(
                str(dataset.get(name) or "")
                for name in ("BodyPartExamined", "StudyDescription", "SeriesDescription")
            ),
            _unique(_dicom_text(dataset)) if identifiers else (),
        )


def _dicom_text(dataset: Dataset) -> Iterator[str]:
    """Values of all attributes of the profile, in sequences too, text in its sequences, and the file's own header."""
    if preamble := getattr(dataset, "preamble", None):
        yield from _runs(preamble)
    for element in getattr(dataset, "file_meta", None) or []:
        yield from _values(element)
    yield from _dataset_text(dataset, False)


def _dataset_text(dataset: Dataset, within: bool) -> Iterator[str]:
    """The same of a data set or of an item; `within`: whether it is in a sequence that the profile lists."""
    coded = within and _is_public_code(dataset)
    for element in dataset:
        listed = is_listed(element.tag.group, element.tag.element)
        if element.VR == "SQ":
            # Whatever action the profile has for a sequence, it goes with all that it holds.
            for item in element.value:
                if listed or not (element.tag in _ASKED and _is_public_code(item)):
                    yield from _dataset_text(item, within or listed)
        elif listed or (
            within and element.VR in _TEXT_VR and not (coded and element.tag in _OF_A_CODE)
        ):
            yield from _values(element)


def _is_public_code(item: Dataset) -> bool:
    """Whether an item is of a coding scheme that is nobody's own (PS3.3 section 8.2: those are 99... and L)."""
    scheme = str(item.get("CodingSchemeDesignator") or "")
    return bool(scheme) and scheme != "L" and not scheme.startswith("99")


def _values(element: DataElement) -> Iterator[str]:
    for value in element.value if element.VM > 1 else [element.value]:
        yield from _runs(value) if isinstance(value, bytes) else [_text(value)]


def _text(value: Any) -> str:
    return (
        "" if value is None or isinstance(value, list) or hasattr(value, "iterall") else str(value)
    )


def _nifti(path: Path) -> Iterator[str]:
    import nibabel as nib

    header: Any = nib.load(path).header
    for name in _NIFTI_TEXT:
        if name in header:
            yield bytes(header[name].item()).decode("utf-8", "replace")
    for extension in header.extensions:
        content = extension.get_content()
        yield from _runs(content if isinstance(content, bytes) else str(content).encode())


def _image(path: Path) -> Iterator[str]:
    """Text chunks, comments, EXIF and TIFF tags, by Pillow; no pixels are decoded."""
    from PIL import Image

    with Image.open(path) as image:
        exif = image.getexif()
        # 0x8769 and 0x8825 are the directories of EXIF and of GPS.
        parts = [image.info, getattr(image, "tag_v2", {}), exif]
        parts += [exif.get_ifd(which) for which in (0x8769, 0x8825)]
        for part in parts:
            for value in dict(part).values():
                for one in value if isinstance(value, tuple) else (value,):
                    if isinstance(one, bytes):
                        yield from _runs(one)
                    elif isinstance(one, str):
                        yield from one.splitlines()
    if image.format == "PNG":
        yield from _behind_pixels(path)


def _behind_pixels(path: Path) -> Iterator[str]:
    """Text chunks behind the pixels of a PNG (PNG 1.2, section 5), which Pillow reads with the pixels only."""
    with open(path, "rb") as handle:
        handle.seek(8)
        while len(head := handle.read(8)) == 8:
            size, name = int.from_bytes(head[:4], "big"), head[4:]
            if name not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
                handle.seek(size + 4, os.SEEK_CUR)
                continue
            data = handle.read(min(size, 2**20))
            handle.seek(size - len(data) + 4, os.SEEK_CUR)
            yield from _runs(data)
            if name in (b"zTXt", b"iTXt") and (at := data.find(b"\x78", data.find(b"\0"))) >= 0:
                with contextlib.suppress(zlib.error):
                    yield from _runs(zlib.decompressobj().decompress(data[at:], 65536))


def _runs(data: bytes) -> Iterator[str]:
    """Printable text in bytes; no more than the first of it, where somebody put a picture there."""
    for found in list(_RUN.finditer(data[:65536]))[:64]:
        yield found[0].decode("utf-8", "replace")


def _unique(texts: Iterator[str]) -> tuple[str, ...]:
    told = (text.strip(" \0") for text in texts)
    kept = (text for text in told if SHORTEST <= len(text) <= _LONGEST)
    return tuple(sorted({text for text in kept if not text.startswith(_STANDARD_UID)}))
