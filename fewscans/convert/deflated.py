"""DICOM whose data set is deflated (PS3.5 A.5), unpacked by blocks and no further than asked: a bomb stays small.

pydicom unpacks all of such a file at once. Here it is stopped where it would, and given a stream in its place.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from isal import isal_zlib
from pydicom import filereader
from pydicom.dataset import FileDataset

from fewscans.convert import Unreadable
from fewscans.convert.packed import UNPACKING, said

_BLOCK = 2**18
# Bytes behind the place where it is read that can be read again.
_BACK = 2**17
# Bytes before the pixels: so many, and so many for each byte of the file, but no more than the last. What is packed
# best, empty items of a sequence, takes pydicom 3 s for the first.
_FIRST, _TIMES, _MOST = 2**20, 8, 2**26
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}  # fmt: skip
StopWhen = Callable[[Any, str | None, int], bool]


class Parsed(NamedTuple):
    """The part of a file that was parsed.

    Attributes
    ----------
    dataset
        As pydicom has it.
    at
        Byte at which parsing ended, of what is unpacked where the file is packed.
    packed_at
        Byte of the file at which what is packed begins; -1 where nothing is.
    """

    dataset: FileDataset
    at: int
    packed_at: int


class Stream:
    """What a deflated stream holds, as a file that is read from its begin to its end.

    Parameters
    ----------
    handle, packed_at
        A file, and the byte at which the stream begins.
    most
        So many bytes are unpacked, and a block.
    """

    def __init__(self, handle: io.BufferedIOBase, packed_at: int, most: int) -> None:
        handle.seek(packed_at)
        self._handle, self._most = handle, most
        self._machine: Any = isal_zlib.decompressobj(-15)
        self._packed = self._window = b""
        self._begins = self._at = 0

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go there; `whence` as for files, but not from the end.

        Raises
        ------
        Unreadable
            It is too far back.
        """
        target = offset + (self._at if whence == 1 else 0)
        if target < self._begins:
            raise Unreadable("damaged: an element of a deflated file does not end")
        while target > self._end and self._more():
            pass
        self._at = min(target, self._end)
        return self._at

    def read(self, n: int = -1) -> bytes:
        """The next `n` bytes, or all; fewer at the end.

        Raises
        ------
        Unreadable
            The stream is damaged, breaks off, or goes on beyond `most`.
        """
        if 0 <= n <= self._end - self._at:
            self._at += n
            start = self._at - n - self._begins
            return self._window[start : start + n]
        made = io.BytesIO()  # its value is not copied at the end
        while n < 0 or made.tell() < n:
            if self._at == self._end and not self._more():
                break
            start = self._at - self._begins
            stop = len(self._window) if n < 0 else start + n - made.tell()
            self._at += made.write(self._window[start:stop])
        return made.getvalue()

    def finish(self) -> None:
        """Unpack what is left, to see that it is whole."""
        while self._more():
            pass

    @property
    def _end(self) -> int:
        return self._begins + len(self._window)

    def _more(self) -> bool:
        """Whether there was another block."""
        while not self._machine.eof:
            if self._end > self._most:  # asked here, for what is read ahead is not yet too much
                limit = f"{self._most / 2**20:.1f} MB"
                raise Unreadable(f"unpacks to more than {limit}, and far more than it should")
            packed = self._packed or self._handle.read(_BLOCK)
            try:
                block = self._machine.decompress(packed, _BLOCK)
            except UNPACKING as error:
                raise Unreadable(
                    f"damaged: its packed data cannot be unpacked ({said(error)})"
                ) from None
            self._packed = self._machine.unconsumed_tail
            if block:
                kept = self._window[-_BACK:]
                self._begins, self._window = self._end - len(kept), kept + block
                return True
            if not packed:
                raise Unreadable("the file is cut short: its packed data break off")
        return False


def parse(path: Path, stop_when: StopWhen, force: bool = False) -> Parsed:
    """The elements of the DICOM file `path` before the first for which `stop_when(tag, vr, length)` is true.

    Raises
    ------
    pydicom.errors.InvalidDicomError
        It has no preamble, and not `force`.
    Unreadable
        It is deflated, and damaged or far longer than it may be.
    """
    try:
        with io.BufferedReader(_Raw(path)) as handle:
            return Parsed(
                filereader.read_partial(handle, stop_when, force=force), handle.tell(), -1
            )
    except _Deflated:
        return _parse_packed(path, stop_when, force)


def _parse_packed(path: Path, stop_when: StopWhen, force: bool) -> Parsed:
    with _Buffered(_Raw(path)) as handle:
        with contextlib.suppress(_Deflated):
            filereader.read_partial(handle, stop_when, force=force)
        packed_at = handle.tell()
        size = handle.seek(0, 2) - packed_at
        handle.seek(0)
        # Without the packed part there is nothing to unpack.
        before = filereader.read_partial(io.BytesIO(handle.read(packed_at)), force=force)
        stream = Stream(handle, packed_at, min(_FIRST + _TIMES * size, _MOST))
        dataset = filereader.read_dataset(cast(Any, stream), False, True, stop_when=stop_when)
    made = FileDataset(str(path), dataset, before.preamble, before.file_meta, False, True)
    made.set_original_encoding(False, True, dataset.original_character_set)
    return Parsed(made, stream.tell(), packed_at)


class _Deflated(Exception):  # noqa: N818
    """The rest of a file is asked for: so pydicom unpacks it."""


class _Raw(io.FileIO):
    """A file of which nobody gets all the rest at once; other reading is no slower."""

    def readall(self) -> bytes:
        raise _Deflated


class _Buffered(io.BufferedReader):
    """The same, and it stays where it is, which a buffer that asks for the rest does not."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise _Deflated
        return super().read(size)
