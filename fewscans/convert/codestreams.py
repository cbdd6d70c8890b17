"""What compressed frames say of themselves: JPEG-LS and JPEG 2000 (HTJ2K too), before a decoder makes room for it.

Their decoders take size and sign from the frame, not from the header of the file. A damaged frame of a hundred bytes
may speak of gigabytes; and one with signed numbers in a file that calls them unsigned would be read as large ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom.encaps import generate_frames, get_frame
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

from fewscans.convert import Unreadable
from fewscans.convert.headers import Header

# Transfer syntaxes whose frames are looked at.
CHECKED = (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
_JP2 = b"\x00\x00\x00\x0cjP  "
# SOC and SIZ (ISO 15444-1 A.5.1), of which the fixed part ends behind the first component.
_J2K, _J2K_BYTES = b"\xff\x4f\xff\x51", 43
# SOF55 (ISO 14495-1 C.2.2).
_JLS_FRAME = 0xF7


class Said(NamedTuple):
    """Size and sign of a compressed frame."""

    rows: int
    columns: int
    samples: int
    signed: bool


def check_frames(syntax: str, header: Header, data: bytes, frame: int | None) -> bool:
    """Whether the numbers of the frames are signed by their own word; False for other transfer syntaxes.

    Raises
    ------
    Unreadable
        A frame says another size than the header, or says none.
    """
    if syntax not in CHECKED:
        return False
    rows, columns, samples = (
        int(header.get(name) or 1) for name in ("Rows", "Columns", "SamplesPerPixel")
    )
    signed = []
    for one in _frames(header, data, frame):
        said = said_by(one)
        if said is None:
            raise Unreadable(
                "pixels cannot be decoded (a compressed frame without its header or its end)"
            )
        if said[:3] != (rows, columns, samples):
            raise Unreadable(
                f"pixels cannot be decoded (a compressed frame of {said.rows} x {said.columns} with {said.samples} per "
                f"pixel, and its header says {rows} x {columns} with {samples})"
            )
        signed.append(said.signed)
    return bool(signed) and all(signed)


def said_by(frame: bytes) -> Said | None:
    """What a frame of JPEG-LS or JPEG 2000 says, in a JP2 box or bare; None where it is neither, or has no end."""
    if frame.startswith(_JP2):
        at = frame.find(b"jp2c")
        frame = frame[at + 4 : at + 4 + _J2K_BYTES] if at >= 0 else b""
    if frame.startswith(_J2K):
        return _j2k(frame) if len(frame) >= _J2K_BYTES else None
    # CharLS reads on for seconds behind a frame without its end (EOI).
    ends = b"\xff\xd9" in frame.rstrip(b"\0")[-4:]
    return _jpeg_ls(frame) if frame.startswith(b"\xff\xd8") and ends else None


def _j2k(frame: bytes) -> Said:
    right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples = int.from_bytes(frame[40:42], "big")
    return Said(bottom - top, right - left, samples, bool(frame[42] & 0x80))


def _jpeg_ls(frame: bytes) -> Said | None:
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if frame[at + 1] == _JLS_FRAME:
            rows, columns = (int.from_bytes(frame[i : i + 2], "big") for i in (at + 5, at + 7))
            return Said(rows, columns, frame[at + 9], False)
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _frames(header: Header, data: bytes, frame: int | None) -> Iterator[bytes]:
    number = int(header.get("NumberOfFrames") or 1)
    offsets = None
    if "ExtendedOffsetTable" in header:
        offsets = (header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths"))
    if frame is not None:
        yield get_frame(data, frame, number_of_frames=number, extended_offsets=offsets)
    else:
        yield from generate_frames(data, number_of_frames=number, extended_offsets=offsets)
