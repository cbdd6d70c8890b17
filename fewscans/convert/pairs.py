"""Headers whose voxels lie in another file: `.hdr` and `.img`, `.mhd` and `.raw`, `.nhdr` and what it names.

The header is the scan; the file with its voxels is none of its own. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

# Ends of a header's name -> usual ends of that of its voxels.
HEADERS = {
    ".hdr": (".img", ".img.gz"),
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz"),
}
# Bytes in which a text header ends; some list a gradient direction per line.
MAX_HEADER = 2**18


def header_name(name: str, others: Collection[str]) -> str | None:
    """Which of `others`, names in the same folder, is the header of the voxels in `name`; or None."""
    lower = name.lower()
    for header, ends in HEADERS.items():
        for end in ends:
            stem = name[: len(name) - len(end)]
            for one in (stem + header, stem + header.upper()):
                if stem and lower.endswith(end) and one in others:
                    return one
    return None


def header_of(path: Path) -> Path:
    """The header of the voxels in `path`, where they have one beside them; else `path` itself."""
    if not path.name.lower().endswith(tuple(end for ends in HEADERS.values() for end in ends)):
        return path
    try:
        found = header_name(path.name, set(os.listdir(path.parent)))
    except OSError:
        return path
    return path.with_name(found) if found else path


def files_of(path: Path) -> tuple[Path, ...]:
    """(header, voxels) of a scan in two files, whichever of them is named; else nothing."""
    header = header_of(path)
    if header.suffix.lower() not in HEADERS:
        return ()
    try:
        data = data_of(header)
    except (OSError, ValueError):
        return ()  # said when it is read
    return (header, data) if data is not None else ()


def data_of(header: Path) -> Path | None:
    """File with the voxels of a `header` that is apart from them; None where they lie in the same file.

    Raises
    ------
    ValueError
        It names several files, one of another folder, or one that is not there; the message says which.
    OSError
        The header cannot be opened.
    """
    with open(header, "rb") as handle:
        head = handle.read(MAX_HEADER)
    if not is_nrrd(head) and not is_metaimage(head):
        return _image_beside(header)
    fields, _ = text_header(head)
    names = [fields[key] for key in ("data file", "datafile", "elementdatafile") if key in fields]
    if not names or (names[0].upper() == "LOCAL" and not is_nrrd(head)):
        return None
    named = names[0]
    if named.upper().startswith("LIST") or "%" in named:
        raise ValueError("names a file per slice; save it as one file")
    if not named or "/" in named or "\\" in named or named in (".", ".."):
        raise ValueError("names no file of its own folder for its voxels; put it beside, correct it")  # fmt: skip
    data = header.parent / named
    if not data.is_file():
        raise ValueError("its voxels are not beside it: the file that it names is missing")
    if os.path.dirname(os.path.realpath(data)) != os.path.dirname(os.path.realpath(header)):
        raise ValueError("its voxels lie behind a link to another folder; copy them there")
    return data


def _image_beside(header: Path) -> Path:
    """The `.img` of a NIfTI or Analyze header."""
    for end in (*HEADERS[".hdr"], ".IMG"):
        data = header.with_name(header.name[: len(header.name) - len(header.suffix)] + end)
        if data.is_file():
            if os.path.dirname(os.path.realpath(data)) != os.path.dirname(os.path.realpath(header)):
                raise ValueError("its voxels lie behind a link to another folder; copy them there")
            return data
    raise ValueError("a header without its voxels: the .img of the same name is missing")


def is_nrrd(head: bytes) -> bool:
    """Whether a file begins as NRRD (``NRRD0001`` to ``NRRD0009``)."""
    return re.match(rb"NRRD000\d\r?\n", head) is not None


def is_metaimage(head: bytes) -> bool:
    """Whether a file begins as a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims)\s*=", head) is not None


def text_header(head: bytes) -> tuple[dict[str, str], int]:
    """(field in small letters -> value, byte at which the header ends) of NRRD or MetaImage.

    Raises
    ------
    ValueError
        It has no end within `MAX_HEADER` bytes, or a field of it stands twice.
    """
    nrrd = is_nrrd(head)
    fields: dict[str, str] = {}
    for line, end in _lines(head):
        if nrrd and not line:
            return fields, end
        if nrrd and (line.startswith("#") or ":=" in line or line.startswith("NRRD")):
            continue
        key, sign, value = line.partition(":" if nrrd else "=")
        name = key.strip().lower()
        if sign and name in fields:
            raise ValueError(f"its header says '{name}' twice")
        if sign:
            fields[name] = value.strip()
        if not nrrd and name == "elementdatafile":
            return fields, end
    if nrrd and len(head) < MAX_HEADER and ("data file" in fields or "datafile" in fields):
        return fields, len(head)  # a detached header may end with the file
    raise ValueError("its header has no end: it is cut short or damaged")


def _lines(head: bytes) -> Iterator[tuple[str, int]]:
    start = 0
    while (stop := head.find(b"\n", start)) >= 0:
        yield head[start:stop].decode("latin-1").strip("\r \t"), stop + 1
        start = stop + 1
    if start < len(head):
        yield head[start:].decode("latin-1").strip("\r \t"), len(head)
