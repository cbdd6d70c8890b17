"""What of a DICOM header is looked for in what goes out: text of the profile's attributes and in its sequences."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fewscans.privacy.annex_e import is_listed
from fewscans.privacy.header import read_header
from fewscans.privacy.search import is_sought

# In no dictionary of pydicom 3.0.
GENDER_IDENTITY, ITS_CODE = 0x00100041, 0x00100044


def code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    made.CodingSchemeVersion = "version 7.1"
    return made


def item(**said: object) -> Dataset:
    made = Dataset()
    for name, value in said.items():
        setattr(made, name, value)
    return made


def sought(path: Path, data: Dataset, syntax: str = ExplicitVRLittleEndian) -> set[str]:
    """What of `data`, written to `path`, is looked for, and is not of the file's own header."""
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    data.save_as(path, enforce_file_format=True)
    own = {str(element.value) for element in pydicom.dcmread(path).file_meta}
    return {text for text in read_header(path).identifiers if is_sought(text)} - own


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_text_in_a_listed_sequence_counts_whatever_its_attribute(
    tmp_path: Path, syntax: str
) -> None:
    assert is_listed(0x0010, 0x0041)
    assert not is_listed(0x0008, 0x0104)  # Code Meaning
    data, identity = Dataset(), Dataset()
    identity.add_new(ITS_CODE, "SQ", [code("446141000124107", "SCT", "Identifies as female")])
    data.add_new(GENDER_IDENTITY, "SQ", [identity])
    assert "Identifies as female" in sought(tmp_path / "x.dcm", data, syntax)


def test_numbers_terms_and_codes_of_public_schemes_are_not_looked_for(tmp_path: Path) -> None:
    data = Dataset()
    data.RequestAttributesSequence = [
        item(
            RequestedProcedureID="REQ 1701", SpecificCharacterSet="ISO_IR 100", SliceThickness="12.3456",
            PatientOrientation=["AXIAL_FORM", "HEAD"], NumberOfFrames=654321, ScheduledProtocolCodeSequence=[
                code("113075012", "DCM", "M"), code("77001122", "99CLINIC", "Ward of Dr. Meier"),
            ],
            LossyImageCompressionRatio=["10.1234"], AcquisitionStartCondition="FROM_START", Rows=54321,
        )
    ]  # fmt: skip
    assert sought(tmp_path / "x.dcm", data) == {
        "REQ 1701", "77001122", "99CLINIC", "version 7.1", "Ward of Dr. Meier"
    }  # fmt: skip


def test_a_question_is_no_answer(tmp_path: Path) -> None:
    """What a context is asked for is a term; what was answered may be anybody's."""
    data, asked = Dataset(), code("121039", "DCM", "Subject Name")
    data.AcquisitionContextSequence = [
        item(
            ConceptNameCodeSequence=[asked], TextValue="the boy of room 12",
            MeasurementUnitsCodeSequence=[code("mm2/ml", "UCUM", "square millimeter per milliliter")],
        ),
        item(ConceptNameCodeSequence=[code("X 1", "L", "Is she Mrs. Huber")]),
    ]  # fmt: skip
    assert sought(tmp_path / "x.dcm", data) == {
        "the boy of room 12", "Is she Mrs. Huber", "version 7.1"
    }  # fmt: skip


def test_a_sequence_of_no_list_has_what_is_listed_in_it_alone(tmp_path: Path) -> None:
    data = Dataset()
    data.ViewCodeSequence = [code("399162004", "SCT", "cranio-caudal view")]
    data.SharedFunctionalGroupsSequence = [
        item(ReferencedImageSequence=[item(TextValue="as of room 12")], PatientName="Meier^Ute")
    ]
    assert not is_listed(0x0054, 0x0220)
    assert not is_listed(0x5200, 0x9229)
    assert sought(tmp_path / "x.dcm", data) == {"as of room 12", "Meier^Ute"}
