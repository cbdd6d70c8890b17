"""A few dozen damaged files of every kind, read in another process under limits (benchmarks/fuzz.py has more)."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib

import fuzz_bombs
import numpy as np
import pytest
from fuzz_factory import case, fuzz, judge, summary
from fuzz_files import BODY, DEEP, READERS

from fewscans.convert import Meta, Scan, Unreadable, decoding, read
from fewscans.convert.npz import read_members
from fewscans.convert.tiff import _unpacks_to
from fewscans.errors import UserError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return {
        line["reader"]: line for line in summary(fuzz(tmp_path_factory.mktemp("fuzz"), READERS, 30))
    }


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_give_a_refusal_or_a_right_answer(found, reader):
    assert found[reader]["bad"] == []
    assert found[reader]["answers"] + found[reader]["refused"] == found[reader]["files"] == 30
    assert found[reader]["answers"] > 0
    assert found[reader]["refused"] > 0


@pytest.mark.parametrize("reader", ["png", "tiff", "dicom", "nii.gz", "nrrd", "mha", "npz"])
def test_bombs_are_among_them_wherever_files_are_packed(found, reader):
    assert found[reader]["bombs"] > 0


def test_a_bomb_is_one(tmp_path):
    """A gigabyte, or what libtiff finds of it in a row as long as it makes."""
    n = 2**26
    assert _unpacks_to(fuzz_bombs._lzw_zeros(), n, 5, 1)
    for kind in (15, 31, -15):
        machine = zlib.decompressobj(kind)
        bomb = fuzz_bombs.repeated(b"first", bytes(2**20), 1000, b"last", kind)
        assert machine.decompress(bomb, n) == b"first" + bytes(n - 5)
        assert len(bomb) < 2**21


def test_a_case_is_the_same_each_time_and_no_other(tmp_path):
    bases = READERS["nii"](tmp_path)
    first = [case(0, "nii", number, bases) for number in range(10)]
    assert first == [case(0, "nii", number, bases) for number in range(10)]
    assert first != [case(1, "nii", number, bases) for number in range(10)]


def test_the_judge_sees_what_may_not_pass():
    scan = Scan(BODY[None], (), Meta("NIFTI", "int16", 16))
    half = Scan(BODY[None, :4], (), Meta("NIFTI", "int16", 16))
    said = Scan(
        half.array, (), Meta("NIFTI", "int16", 16, notes=("9 bytes more than its header says",))
    )
    files = {"a": bytes(BODY.nbytes)}
    assert judge("nii", "lie", [scan], [scan], files) == ""
    assert "silent" in judge("nii", "lie", [half], [scan], files)
    assert judge("nii", "lie", [said], [scan], files) == ""
    assert "silent" in judge("nii", "cut", [half], [scan], files)
    assert "silent" in judge("nii", "flip", [scan], [scan], {"a": bytes(100)})
    assert "silent" in judge("nii", "flip", [Scan(scan.array, (0.0,), scan.meta)], [scan], files)
    whole, part = (
        Scan(pixels, (), Meta("JPEG", "L", 8)) for pixels in (DEEP[None], DEEP[None, :16])
    )
    assert judge("jpeg", "lie", [whole], [whole], files) == ""
    assert "silent" in judge("jpeg", "lie", [part], [whole], files)
    assert "silent" in judge("jpeg", "deny", [whole], [whole], files)


# --- what fuzzing found, each by itself -----------------------------------------------------------


def test_a_metaimage_with_more_axes_than_lists_is_refused(tmp_path):
    """SimpleITK ended the process."""
    files = READERS["mha"](tmp_path / "base")[0]
    for old, new in ((b"NDims = 3", b"NDims = 2147483647"), (b"DimSize = 7 8 9", b"DimSize = 7 8")):
        (tmp_path / "a.mha").write_bytes(files["a.mha"].replace(old, new))
        with pytest.raises(Unreadable, match="damaged: "):
            read(tmp_path / "a.mha", 3)


def test_dicom_with_fewer_rows_than_pixels_says_so(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a", DEEP, Rows=len(DEEP) // 2)
    assert "than its header says" in read(path).meta.notes[0]
    assert read(write_dicom(tmp_path / "b", DEEP)).meta.notes == ()


def test_compressed_dicom_whose_items_lie_is_not_given_to_a_second_decoder(tmp_path, monkeypatch):
    """GDCM made room for 1.6 GB that a file of 2 kB spoke of."""
    monkeypatch.setattr(decoding, "_decode_gdcm", lambda *_: pytest.fail("was asked"))
    files = READERS["dicom"](tmp_path / "base")
    data = next(one["a"] for one in files if b"1.2.840.10008.1.2.5" in one["a"])
    item = data.rindex(b"\xfe\xff\x00\xe0")
    lie = b"\xbc\x00\x13\x92" + struct.pack("<I", 2**31 - 2)
    (tmp_path / "a").write_bytes(data[:item] + lie + data[item + 8 :])
    with pytest.raises(Unreadable, match="pixels cannot be decoded"):
        read(tmp_path / "a")
    assert not decoding._fragments_are_whole(lie + bytes(100))
    whole = b"\xfe\xff\x00\xe0" + struct.pack("<I", 100) + bytes(100)
    assert decoding._fragments_are_whole(whole)
    assert not decoding._fragments_are_whole(whole[:-1])


def test_damaged_dicom_that_pydicom_knows_is_not_given_to_gdcm(tmp_path, monkeypatch):
    """It took 1.2 GB for RLE of 2 kB without Samples per Pixel, and kept it."""
    monkeypatch.setattr(decoding, "_decode_gdcm", lambda *_: pytest.fail("was asked"))
    data = next(
        one["a"]
        for one in READERS["dicom"](tmp_path / "base")
        if b"1.2.840.10008.1.2.5" in one["a"]
    )
    at = data.index(b"\x28\x00\x02\x00US")
    (tmp_path / "a").write_bytes(data[: at + 2] + b"\x01" + data[at + 3 :])
    with pytest.raises(Unreadable, match="Samples per Pixel"):
        read(tmp_path / "a")


def test_voxels_far_behind_the_header_are_damage(tmp_path):
    data = bytearray(READERS["nii"](tmp_path / "base")[0]["a.nii"])
    for offset in (1e12, np.nan, -1.0):
        data[108:112] = struct.pack("<f", offset)
        (tmp_path / "a").write_bytes(gzip.compress(data))
        with pytest.raises(Unreadable, match="its voxels begin at byte"):
            read(tmp_path / "a", 3)


def test_an_npz_cannot_promise_what_is_not_there(tmp_path):
    def problem(header: dict, data: bytes, text: bytes = b"") -> str:
        made = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            made, {"descr": "|u1", "fortran_order": False} | header
        )
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("train_images.npy", (text or made.getvalue()) + data)
        with pytest.raises(UserError) as caught:
            read_members(tmp_path / "a.npz", 2)
        return str(caught.value)

    assert "one of them is wrong" in problem({"shape": (10**12, 8, 8)}, bytes(640))
    assert "one of them is wrong" in problem({"shape": (5, 8, 8)}, bytes(640))
    broken = b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1',"
    assert "its header is damaged" in problem({"shape": ()}, bytes(64), broken)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-10])
    with pytest.raises(UserError, match=r"not an \.npz archive, or damaged"):
        read_members(tmp_path / "b.npz", 2)
