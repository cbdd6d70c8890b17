"""Deflated DICOM: the same as pydicom gives, and a bomb is refused before it is large."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import dicom_file
from convert_factory import reason
from fuzz_bombs import repeated
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian
from test_lean import assert_read_alike

from fewscans.convert import Unreadable, deflated, headers, read
from fewscans.convert.deflated import Stream, parse
from fewscans.privacy.header import read_header as read_private

PIXELS = np.random.default_rng(0).integers(0, 65536, (24, 20), dtype=np.uint16)
ROWS = b"\x28\x00\x10\x00US"
OW = b"\xe0\x7f\x10\x00OW\0\0"


def packed(data: bytes) -> bytes:
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return machine.compress(data) + machine.flush()


@pytest.fixture
def parts(tmp_path) -> tuple[bytes, bytes]:
    """(what stands before the packed data set, the data set) of a file."""
    path = dicom_file(tmp_path / "whole", PIXELS, syntax=DeflatedExplicitVRLittleEndian)
    at = parse(path, lambda *_: False).packed_at
    data = path.read_bytes()
    return data[:at], zlib.decompress(data[at:], -15)


def told(tmp_path: Path, data: bytes) -> str:
    """What is said of a file, which may not take 100 MB."""
    (tmp_path / "a").write_bytes(data)
    tracemalloc.start()
    try:
        return reason(tmp_path / "a")
    finally:
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        tracemalloc.stop()


@settings(deadline=None)
@given(
    st.binary(max_size=40).flatmap(lambda few: st.integers(0, 60).map(lambda n: few * n)),
    st.lists(st.integers(-1, 300), max_size=20),
    st.integers(1, 64),
)
def test_a_stream_gives_what_a_file_would(data, sizes, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflated, "_BLOCK", block)
        one = Stream(io.BytesIO(b"head" + packed(data) + b"\0"), 4, len(data))
        other = io.BytesIO(data)
        for n in sizes:
            back = min(n, other.tell(), 16)
            if n > 0 and n % 3 == 0:
                other.seek(-back, 1)
                one.seek(-back, 1)
            assert one.read(n) == other.read(n)
            assert one.tell() == other.tell()
        one.finish()
        assert one.read() == other.read()


def test_a_stream_that_breaks_off_or_is_damaged_says_so():
    good = packed(PIXELS.tobytes())
    for bad, said in ((good[:-3], "break off"), (b"", "break off"), (b"\xff" * 9, "cannot be unpacked")):  # fmt: skip
        with pytest.raises(Unreadable, match=said):
            Stream(io.BytesIO(bad), 0, 10**6).read()
    assert Stream(io.BytesIO(good[:-3]), 0, 10**6).read(100) == PIXELS.tobytes()[:100]


def test_a_real_deflated_file_is_read_as_pydicom_reads_it(shared_data):
    path = shared_data("dicom_2d_quirks") / "files" / "image_dfl.dcm"
    assert_read_alike(path)
    expected = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read(path).array[0], expected)
    assert read(path).meta.notes == ()


def test_a_header_is_not_kept_unpacked_nor_are_pixels_unpacked_for_it(tmp_path):
    large = np.zeros((3000, 3000), np.uint16)
    path = dicom_file(tmp_path / "a", large, syntax=DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    header = headers.read_header(path)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2**17
    assert most < 2**22 < large.nbytes
    assert header.dataset.buffer is None
    assert headers.read_pixels(path, header).data == large.tobytes()


def test_bombs_behind_and_within_the_pixels_are_refused(tmp_path, parts):
    before, data = parts
    zeros = bytes(2**20)
    at = data.index(OW[:4])
    bombs = {
        "behind": repeated(data, zeros, 2000),
        "too long": repeated(data[:at] + OW + struct.pack("<I", 2**32 - 2), zeros, 2000),
        "without end": repeated(data[:at] + b"\xe0\x7f\x10\x00OB\0\0" + b"\xff" * 4, zeros, 2000),
    }
    for name, bomb in bombs.items():
        assert "far more than it should" in told(tmp_path, before + bomb), name


def test_bombs_before_the_pixels_are_refused(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(deflated, "_FIRST", 2**16)  # a MB of empty items takes seconds
    monkeypatch.setattr(deflated, "_BLOCK", 2**14)
    before, data = parts
    at = data.index(ROWS)
    one = data[:at] + b"\x27\x00\x12\x00OB\0\0" + struct.pack("<I", 2**31)
    items = data[:at] + b"\x18\x00\x12\x00SQ\0\0" + b"\xff" * 4
    for bomb in (
        repeated(one, bytes(2**20), 2048, data[at:]),
        repeated(items, b"\xfe\xff\x00\xe0\0\0\0\0" * 2**14, 50, data[at:]),
    ):
        assert "far more than it should" in told(tmp_path, before + bomb)
        assert read_private(tmp_path / "a").identifiers == ()


def test_more_pixels_than_are_unpacked_are_set_aside(tmp_path, parts):
    before, data = parts
    at = data.index(ROWS)
    frames = data[:at] + b"\x28\x00\x08\x00IS\x06\x00999999" + data[at:]
    (tmp_path / "a").write_bytes(before + packed(frames))
    with pytest.raises(Unreadable, match="MB of pixels, deflated: more than the 512 MB") as caught:
        headers.read_pixels(tmp_path / "a", headers.read_header(tmp_path / "a"))
    assert caught.value.status == "set-aside"


def test_what_is_behind_the_pixels_is_told_or_left_alone(tmp_path, parts):
    before, data = parts
    (tmp_path / "a").write_bytes(before + packed(data + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"))
    scan = read(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], PIXELS)
    assert scan.meta.notes == ()
    at = data.index(OW[:4])
    length = struct.pack("<I", PIXELS.nbytes + 200)
    (tmp_path / "b").write_bytes(
        before + packed(data[: at + 8] + length + data[at + 12 :] + bytes(200))
    )
    assert "than its header says" in read(tmp_path / "b").meta.notes[0]
    (tmp_path / "c").write_bytes(before + packed(data)[:-30])
    assert "its packed data break off" in reason(tmp_path / "c")


def test_a_large_header_is_no_bomb(tmp_path, parts):
    """An overlay of zeros is packed a thousand times."""
    before, data = parts
    at = data.index(OW[:4])
    overlay = b"\x00\x60\x00\x30OW\0\0" + struct.pack("<I", 900_000) + bytes(900_000)
    (tmp_path / "a").write_bytes(before + packed(data[:at] + overlay + data[at:]))
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], PIXELS)
