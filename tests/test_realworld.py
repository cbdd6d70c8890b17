"""Real world mappings and modality tables of DICOM: which one counts, in which unit, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from fewscans.convert import read

STORED = np.arange(20, dtype=np.uint16).reshape(4, 5)


def mapping(slope=0.001, intercept=-0.5, unit="mm2/s", first=0, last=4095, **more) -> Dataset:
    made, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    made.MeasurementUnitsCodeSequence = [code]
    if slope is not None:
        made.RealWorldValueSlope, made.RealWorldValueIntercept = slope, intercept
    made.add_new(0x00409216, "US", first)
    made.add_new(0x00409211, "US", last)
    for name, value in more.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


@pytest.fixture
def scan(tmp_path, write_dicom):
    def make(*mappings: Dataset, stored=STORED, frame=None, **tags):
        tags = {"Modality": "MR", **tags}
        if mappings:
            tags["RealWorldValueMappingSequence"] = list(mappings)
        return read(write_dicom(tmp_path / "a", stored, **tags), frame=frame)

    return make


def test_a_mapping_gives_values_their_unit_from_stored_numbers(scan):
    made = scan(mapping())
    np.testing.assert_allclose(made.physical()[0], STORED * 0.001 - 0.5, rtol=1e-6)
    assert made.meta.unit == "mm2/s"
    assert made.meta.notes == ("values in mm2/s, by a real world mapping",)
    assert scan(mapping(unit="[hnsf'U]")).meta.unit == "HU"


def test_a_mapping_goes_before_a_rescale_without_a_unit_and_never_behind_it(scan):
    made = scan(mapping(), RescaleSlope=7, RescaleIntercept=3, RescaleType="US")
    np.testing.assert_allclose(made.physical()[0], STORED * 0.001 - 0.5, rtol=1e-6)


@pytest.mark.parametrize("tags", [{"Modality": "CT"}, {"RescaleType": "HU"}])
def test_a_rescale_that_names_its_unit_goes_first(scan, tags):
    made = scan(mapping(), RescaleSlope=2, RescaleIntercept=-1024, **tags)
    np.testing.assert_array_equal(made.physical()[0], STORED * 2.0 - 1024)
    assert made.meta.unit == "HU"


@pytest.mark.parametrize(("mappings", "said"), [
    ([mapping(), mapping(unit="1")], "2 real world mappings"),
    ([mapping(RealWorldValueSlope=None)], "without line or table"),
    ([mapping(RealWorldValueSlope=None, RealWorldValueLUTData=[0.0, 1.0])], "table is not whole"),
    ([mapping(RealWorldValueSlope=None, RealWorldValueLUTData=[0.0] * 19, last=18)], "leaves out some of the pixels"),
    ([mapping(RealWorldValueSlope=None, RealWorldValueLUTData=[np.nan] * 20, last=19)], "table is not whole"),
    ([mapping(RealWorldValueSlope=None, RealWorldValueLUTData=[0.0] * 20, last=19, unit="1")], "without a unit"),
    ([mapping(unit="of John Q Public's scanner")], "without a unit"),
    ([mapping(last=18)], "leaves out some of the pixels"),
    ([mapping(first=1)], "leaves out some of the pixels"),
])  # fmt: skip
def test_what_is_not_used_is_said(scan, mappings, said):
    made = scan(*mappings, RescaleSlope=2, RescaleIntercept=1, RescaleType="US")
    np.testing.assert_array_equal(made.physical()[0], STORED * 2.0 + 1)
    assert made.meta.unit == ""
    assert said in made.meta.notes[0]


def table(values, first=0, **more) -> Dataset:
    values = [float(value) for value in values]
    last = first + len(values) - 1
    return mapping(
        slope=None, intercept=None, RealWorldValueLUTData=values, first=first, last=last, **more
    )


def test_a_table_gives_values_their_unit(scan):
    values = np.sqrt(np.arange(100.0))
    made = scan(table(values), RescaleSlope=7, RescaleIntercept=3, RescaleType="US")
    np.testing.assert_allclose(made.physical()[0], values[STORED], rtol=1e-6)
    assert (made.meta.unit, made.array.dtype) == ("mm2/s", np.float32)
    assert made.meta.notes == ("values in mm2/s, by the table of a real world mapping",)


def test_a_table_of_signed_numbers_begins_at_its_first(scan):
    stored = STORED.astype(np.int16) - 10
    values = np.exp(np.arange(30) / 10)
    for first in (-12, 65536 - 12):
        one = table(values)
        one.add_new(0x00409216, "SS" if first < 0 else "US", first)
        one.add_new(0x00409211, "SS", 17)
        made = scan(one, stored=stored)
        np.testing.assert_allclose(made.physical()[0], values[stored + 12], rtol=1e-6)


def test_a_unit_of_the_rescale_goes_before_a_table(scan):
    made = scan(table(range(20)), RescaleSlope=2, RescaleIntercept=-1024, RescaleType="HU")
    np.testing.assert_array_equal(made.physical()[0], STORED * 2.0 - 1024)


def test_a_table_need_not_reach_padding(scan):
    stored = STORED.copy()
    stored[0, :3] = 60000
    values = -np.sqrt(np.arange(20.0))
    made = scan(table(values), stored=stored, PixelPaddingValue=60000)
    expected = values[STORED]
    expected[0, :3] = values[19]
    np.testing.assert_allclose(made.physical()[0], expected, rtol=1e-6)
    assert made.meta.notes[1] == "padding (15 % of it) became the lowest real value"


def test_a_table_of_each_frame_of_a_volume(write_dicom, tmp_path):
    from series_factory import Series, converted

    one = Series(write_dicom, tmp_path / "a")
    for k in range(4):
        values = np.arange(20.0) ** 2 * (k + 1)
        one.slice(STORED, 3.0 * k, Modality="MR", RealWorldValueMappingSequence=[table(values)])
    (made,) = converted(tmp_path, "a").values()
    expected = np.concatenate([STORED.ravel() ** 2.0 * (k + 1) for k in range(4)])
    np.testing.assert_allclose(np.sort(made.physical(), axis=None), np.sort(expected))
    assert made.meta.unit == "mm2/s"


def test_ends_of_a_mapping_of_signed_numbers_may_be_written_unsigned(scan):
    stored = STORED.astype(np.int16) - 10
    assert scan(mapping(first=65536 - 10, last=10), stored=stored).meta.unit == "mm2/s"
    assert scan(mapping(first=65536 - 9, last=10), stored=stored).meta.unit == ""


def test_frames_have_mappings_of_their_own_or_that_of_all(scan):
    own, shared = Dataset(), Dataset()
    own.RealWorldValueMappingSequence = [mapping(slope=2, intercept=0)]
    shared.RealWorldValueMappingSequence = [mapping(slope=3, intercept=1)]
    tags = {
        "PerFrameFunctionalGroupsSequence": [Dataset(), own], "SharedFunctionalGroupsSequence": [shared],
        "NumberOfFrames": 2, "Rows": 2,
    }  # fmt: skip
    np.testing.assert_array_equal(scan(frame=0, **tags).physical()[0], STORED[:2] * 3.0 + 1)
    np.testing.assert_array_equal(scan(frame=1, **tags).physical()[0], STORED[2:] * 2.0)


def test_a_modality_table_is_applied_and_names_its_unit(scan):
    table = Dataset()
    table.add_new(0x00283002, "US", [20, 0, 16])
    table.ModalityLUTType = "HU"
    table.add_new(0x00283006, "US", [100 * n for n in range(20)])
    made = scan(mapping(), ModalityLUTSequence=[table])
    np.testing.assert_array_equal(made.physical()[0], STORED * 100.0)
    assert made.meta.unit == "HU"
