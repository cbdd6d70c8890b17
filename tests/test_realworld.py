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
    ([mapping(RealWorldValueSlope=None, RealWorldValueLUTData=[0.0, 1.0])], "no straight line"),
    ([mapping(unit="of John Q Public's scanner")], "without a unit"),
    ([mapping(last=18)], "leaves out some of the pixels"),
    ([mapping(first=1)], "leaves out some of the pixels"),
])  # fmt: skip
def test_what_is_not_used_is_said(scan, mappings, said):
    made = scan(*mappings, RescaleSlope=2, RescaleIntercept=1, RescaleType="US")
    np.testing.assert_array_equal(made.physical()[0], STORED * 2.0 + 1)
    assert made.meta.unit == ""
    assert said in made.meta.notes[0]


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
