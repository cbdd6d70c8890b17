"""Padding of DICOM becomes the lowest real value: one number or a range, in frames and in series."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from series_factory import TILTED, Series, converted

from fewscans.convert import read

STORED = np.array([[-2000, -2000, -1000, 5], [-2000, 40, -990, 300]], np.int16)
FILLED = np.array([[-1000, -1000, -1000, 5], [-1000, 40, -990, 300]])
NOTE = "padding (38 % of it) became the lowest real value"


def element(value: int, *, signed: bool = True, limit: int | None = None) -> dict[str, object]:
    """Arguments of `write_dicom`, with their VR by pixel representation as PS3.6 has it."""
    kind = "SS" if signed else "US"
    made: dict[str, object] = {"PixelPaddingValue": pydicom.DataElement(0x00280120, kind, value)}
    if limit is not None:
        made["PixelPaddingRangeLimit"] = pydicom.DataElement(0x00280121, kind, limit)
    return made


@pytest.fixture
def scan(tmp_path, write_dicom):
    def make(stored, padding, **tags):
        path = write_dicom(tmp_path / "a", stored, **tags)
        dataset = pydicom.dcmread(path)
        for one in padding.values():
            dataset.add(one)
        dataset.save_as(path)
        return read(path)

    return make


@pytest.mark.parametrize("padding", [
    element(-2000), element(-2000, limit=-1990), element(-1990, limit=-2100), element(63536, signed=False),
])  # fmt: skip
def test_a_value_or_a_range_either_way(scan, padding):
    made = scan(STORED, padding, RescaleSlope=2, RescaleIntercept=-24)
    np.testing.assert_array_equal(made.physical()[0], FILLED * 2.0 - 24)
    assert made.meta.notes == (NOTE,)


def test_unsigned_pixels_with_a_value_above_all_others(scan):
    stored = np.array([[65535, 3], [4, 9]], np.uint16)
    for padding in (element(65535, signed=False), element(-1)):
        np.testing.assert_array_equal(scan(stored, padding).array[0], [[3, 3], [4, 9]])


def test_a_range_takes_both_its_ends_and_nothing_beside_them(scan):
    stored = np.array([[-12, -11, -10, -9, -8, 5]], np.int16)
    made = scan(stored, element(-11, limit=-9))
    np.testing.assert_array_equal(made.array[0], [[-12, -12, -12, -12, -8, 5]])


def test_monochrome1_has_padding_as_its_ground(scan):
    stored = np.array([[0, 0, 1000], [2000, 3000, 0]], np.uint16)
    tags = {
        "Modality": "CR", "PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11,
    }  # fmt: skip
    made = scan(stored, element(0, signed=False), **tags)
    np.testing.assert_array_equal(made.physical()[0], [[1095, 1095, 3095], [2095, 1095, 1095]])
    assert made.meta.notes == ("MONOCHROME1: turned over", NOTE.replace("38", "50"))


def test_nothing_changes_where_everything_is_padding_or_nothing(scan):
    same = np.full((2, 4), -1000, np.int16)
    for stored, value in ((same, -1000), (STORED, 7)):
        made = scan(stored, element(value))
        np.testing.assert_array_equal(made.array[0], stored)
        assert made.meta.notes == ()


@pytest.mark.parametrize("value", [None, "", b""])
def test_padding_without_a_value_is_none(scan, value):
    padding = {"a": pydicom.DataElement(0x00280120, "SS", value)}
    assert scan(STORED, padding).meta.notes == ()


def test_colours_have_no_padding(scan):
    stored = np.array([[[255, 255, 255], [1, 2, 3]]], np.uint8)
    made = scan(stored, element(255, signed=False), Modality="US")
    assert made.array.max() == 255


def test_floats_have_a_value_of_their_own(tmp_path, write_dicom):
    stored = np.array([[-1e9, 0.5], [2.5, np.nan]], np.float32)
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint16)))
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = stored.tobytes()
    dataset.FloatPixelPaddingValue = float(stored[0, 0])
    dataset.save_as(tmp_path / "a")
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], [[0.5, 0.5], [2.5, 0.5]])


def test_lossy_compression_has_no_padding_but_a_range(scan):
    tags = {"LossyImageCompression": "01"}
    left = scan(STORED, element(-2000), **tags)
    assert left.meta.notes == ("lossy compression blurs its padding: left alone",)
    assert int(left.array.min()) == -2000
    assert scan(STORED, element(-2000, limit=-1900), **tags).meta.notes == (NOTE,)


def table_of(*values: int) -> Dataset:
    made = Dataset()
    made.add_new(0x00283002, "US", [len(values), 0, 16])
    made.ModalityLUTType = "US"
    made.add_new(0x00283006, "US", list(values))
    return made


def test_padding_is_found_behind_a_modality_table(scan):
    stored = np.array([[0, 1, 2], [3, 0, 2]], np.uint16)
    made = scan(stored, element(0, signed=False), ModalityLUTSequence=[table_of(5, 100, 200, 300)])
    np.testing.assert_array_equal(made.array[0], [[100, 100, 200], [300, 100, 200]])
    made = scan(
        stored, element(0, signed=False), ModalityLUTSequence=[table_of(200, 100, 200, 300)]
    )
    np.testing.assert_array_equal(made.array[0], [[200, 100, 200], [300, 200, 200]])
    assert made.meta.notes == ("padding that a table maps to real values was left alone",)


def test_a_real_world_mapping_need_not_reach_padding(scan):
    from test_realworld import mapping

    stored = np.array([[60000, 3], [4, 9]], np.uint16)
    made = scan(
        stored,
        element(60000, signed=False),
        Modality="MR",
        RealWorldValueMappingSequence=[mapping()],
    )
    assert made.meta.unit == "mm2/s"
    np.testing.assert_allclose(
        made.physical()[0], stored % 60000 * 0.001 - 0.5 + [[0.003, 0], [0, 0]], rtol=1e-5
    )


@given(st.integers(-100, 100), st.integers(-100, 100))
def test_what_is_padding_is_between_the_ends(one, other):
    from fewscans.convert.padding import Padding

    values = np.arange(-128, 128, dtype=np.int16)
    mask = Padding(min(one, other), max(one, other)).of(values)
    assert [int(v) for v in values[mask]] == list(range(min(one, other), max(one, other) + 1))


# --- series ---------------------------------------------------------------------------------------


def body() -> np.ndarray:
    """[6, 5, 4], with padding at the rim; the lowest real value, 10, is in the fourth slice."""
    made = (np.arange(120, dtype=np.int16).reshape(6, 5, 4) * 7) % 400 + 11
    made[3, 2, 2] = 10
    made[:, 0] = -2000
    return made


def series(write_dicom, folder: Path, stored: np.ndarray, **tags) -> None:
    Series(write_dicom, folder).body(body=stored, PixelPaddingValue=-2000, **tags)


def test_a_volume_has_one_lowest_value(write_dicom, tmp_path):
    series(write_dicom, tmp_path / "a", body(), RescaleSlope=1, RescaleIntercept=-1024)
    (scan,) = converted(tmp_path, "a").values()
    assert scan.array.dtype == np.int16
    assert int(scan.array.min()) == 10
    assert int((scan.array == 10).sum()) == 6 * 4 + 1
    assert "padding (20 % of it) became the lowest real value" in scan.meta.notes


def test_a_volume_with_a_slope_of_each_slice(write_dicom, tmp_path):
    one = Series(write_dicom, tmp_path / "a")
    stored = body()
    for k in range(6):
        one.slice(
            stored[k],
            3.0 * k,
            PixelPaddingValue=-2000,
            RescaleSlope=k + 1,
            RescaleIntercept=-100 * k,
        )
    (scan,) = converted(tmp_path, "a").values()
    slope = np.arange(1, 7)[:, None, None]
    values = stored * slope - 100.0 * (slope - 1)
    values[:, 0] = values[:, 1:].min()
    assert scan.array.dtype == np.float32
    turned = np.sort(scan.physical(), axis=None)
    np.testing.assert_allclose(turned, np.sort(values, axis=None))


def test_no_value_between_padding_and_tissue_is_made(write_dicom, tmp_path):
    """Shearing interpolates; between -2000 and 10 there was nothing."""
    one = Series(write_dicom, tmp_path / "a")
    for k, plane in enumerate(body()):
        one.slice(
            plane,
            0,
            PixelPaddingValue=-2000,
            ImageOrientationPatient=TILTED,
            ImagePositionPatient=[0, 0, 2.8 * k],
        )
    (scan,) = converted(tmp_path, "a").values()
    assert any("sheared" in note for note in scan.meta.notes)
    assert int(scan.array.min()) == 10


def test_low_is_white_in_a_volume(write_dicom, tmp_path):
    stored = body()
    stored[:, 0] = -5
    Series(write_dicom, tmp_path / "a").body(
        body=stored, PixelPaddingValue=-5, Modality="MR", PhotometricInterpretation="MONOCHROME1"
    )
    (scan,) = converted(tmp_path, "a").values()
    assert scan.physical().min() == -1 - stored.max()  # darkest real one, and no brightest rim
    assert scan.physical().max() == -1 - 10


# --- real files -----------------------------------------------------------------------------------


def test_a_real_slice_with_padding(shared_data):
    path = shared_data("dicom_2d_quirks") / "files" / "693_J2KR.dcm"
    stored = pydicom.dcmread(path).pixel_array
    scan = read(path)
    measured = stored != -2000
    np.testing.assert_array_equal(scan.physical()[0][measured], stored[measured] - 1024.0)
    np.testing.assert_array_equal(scan.physical()[0][~measured], stored[measured].min() - 1024.0)
    assert scan.meta.notes == ("padding (21 % of it) became the lowest real value",)


def test_a_real_volume_with_padding(shared_data, tmp_path):
    root = shared_data("dicom_series_quirks")
    files = list((root / "ct_ge_tilt_uneven").glob("*.dcm"))
    shutil.copytree(root / "ct_ge_tilt_uneven", tmp_path / "a")
    (scan,) = converted(tmp_path, "a").values()
    lowest = []
    for path in files:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
        real = pixels[pixels != dataset.PixelPaddingValue]
        lowest.append(float(real.min() * dataset.RescaleSlope + dataset.RescaleIntercept))
    assert scan.physical().min() == min(lowest)
    assert any("padding (24 %" in note for note in scan.meta.notes)


def test_slices_that_have_the_lowest_value_as_padding_say_nothing(write_dicom, tmp_path):
    """In physical values the padding of the second slice is the lowest value of the first."""
    one = Series(write_dicom, tmp_path / "a")
    for k, (padding, intercept) in enumerate(((-5, 0), (4, 6), (4, 6))):
        plane = np.arange(10, 30, dtype=np.int16).reshape(4, 5)
        if k:
            plane[0, 0] = 4
        one.slice(
            plane, 3.0 * k, PixelPaddingValue=padding, RescaleSlope=1, RescaleIntercept=intercept
        )
    (scan,) = converted(tmp_path, "a").values()
    assert not any("padding" in note for note in scan.meta.notes)
    assert scan.physical().min() == 10
