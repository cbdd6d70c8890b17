"""Reading DICOM and NIfTI: numbers, sign, unit and spacing."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from convert_factory import COLOUR, DEEP, GRAY, SMALL, reason
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewscans.convert import Unreadable, read
from fewscans.convert.fingerprint import pixel_digest

# --- DICOM ----------------------------------------------------------------------------------------


def gdcm(path: Path) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return sitk.GetArrayFromImage(reader.Execute())[0]


@SMALL
@given(
    stored=hnp.arrays(
        st.sampled_from([np.int16, np.uint16, np.uint8]), (3, 4), elements=st.integers(0, 255)
    ),
    slope=st.sampled_from([1, 2, 0.5]),
    intercept=st.sampled_from([0, -1024, 17]),
)
def test_pydicom_and_simpleitk_agree_to_the_voxel_on_hu(
    tmp_path_factory, write_dicom, stored, slope, intercept
):
    path = tmp_path_factory.mktemp("dicom") / "a.dcm"
    write_dicom(path, stored, RescaleSlope=slope, RescaleIntercept=intercept)
    scan = read(path)
    assert scan.array.dtype == stored.dtype
    assert scan.meta.unit == "HU"
    np.testing.assert_array_equal(scan.physical()[0], stored * float(slope) + intercept)
    np.testing.assert_array_equal(scan.physical()[0], gdcm(path))


def test_negative_values_keep_their_sign(tmp_path, write_dicom):
    stored = np.array([[-2000, -1], [0, 3000]], np.int16)
    scan = read(write_dicom(tmp_path / "a", stored))
    np.testing.assert_array_equal(scan.physical()[0], stored)
    assert scan.meta.unit == ""  # CT without rescale: nobody says that these are HU


def test_monochrome1_without_a_unit_is_turned_over(tmp_path, write_dicom):
    stored = DEEP % 4096
    tags = {"Modality": "CR", "BitsStored": 12, "HighBit": 11}
    bright = read(write_dicom(tmp_path / "a", stored, **tags))
    tags["PhotometricInterpretation"] = "MONOCHROME1"
    dark = read(write_dicom(tmp_path / "b", 4095 - stored, **tags))
    assert dark.meta.mode == "MONOCHROME1"
    assert pixel_digest(dark.physical()) == pixel_digest(bright.physical())


def test_monochrome1_signed_is_turned_over_within_its_range(tmp_path, write_dicom):
    stored = np.array([[-32768, 32767]], np.int16)
    path = write_dicom(
        tmp_path / "a", stored, Modality="DX", PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(read(path).physical()[0], [[32767, -32768]])


def test_monochrome1_in_hu_means_what_it_means(tmp_path, write_dicom):
    stored = np.array([[0, 1024, 2000]], np.int16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    tags["PhotometricInterpretation"] = "MONOCHROME1"
    scan = read(write_dicom(tmp_path / "a", stored, **tags))
    np.testing.assert_array_equal(scan.physical()[0], [[-1024, 0, 976]])
    assert "HU" in scan.meta.notes[0]


def test_spacing_is_between_rows_then_between_columns(tmp_path, write_dicom):
    scan = read(write_dicom(tmp_path / "a", DEEP, PixelSpacing=[0.7, 0.3]))
    assert scan.spacing_mm == (0.7, 0.3)


@pytest.mark.parametrize("value", [[0, 0], [-1, 1], None])
def test_spacing_that_cannot_be_is_unknown_not_guessed(tmp_path, write_dicom, value):
    scan = read(write_dicom(tmp_path / "a", DEEP, PixelSpacing=value))
    assert scan.spacing_mm == ()


def test_dicom_colour_is_channels_first(tmp_path, write_dicom):
    scan = read(write_dicom(tmp_path / "a", COLOUR, Modality="US"))
    np.testing.assert_array_equal(scan.array, np.moveaxis(COLOUR, -1, 0))


def test_several_frames_are_set_aside(tmp_path, write_dicom):
    assert "set-aside: 2 frames" in reason(
        write_dicom(tmp_path / "a", np.concatenate([GRAY, GRAY]), Rows=5, NumberOfFrames=2)
    )


def test_dicom_without_pixels_is_set_aside(tmp_path, write_dicom):
    import pydicom

    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", GRAY, Modality="SR"))
    del dataset.PixelData
    dataset.save_as(tmp_path / "b")
    assert reason(tmp_path / "b") == "set-aside: holds no image (SR)"


def test_a_preamble_that_poses_as_tiff_is_still_dicom(tmp_path, write_dicom):
    data = bytearray(write_dicom(tmp_path / "a", DEEP).read_bytes())
    data[:4] = b"II*\0"
    (tmp_path / "b").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "b").array[0], DEEP)


def test_dicom_without_preamble_and_syntax_is_read(tmp_path, write_dicom):
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    path = write_dicom(tmp_path / "a", DEEP, syntax=ImplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    pydicom.dcmwrite(
        tmp_path / "b", dataset, implicit_vr=True, little_endian=True, force_encoding=True
    )
    data = (tmp_path / "b").read_bytes()
    start = data.index(b"\x08\x00\x16\x00")  # SOP class, the first element behind the file meta
    (tmp_path / "c").write_bytes(data[start:])
    scan = read(tmp_path / "c")
    np.testing.assert_array_equal(scan.array[0], DEEP)
    assert "no transfer syntax" in scan.meta.notes[0]


# --- NIfTI ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 1, 1)])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_nifti_slice_is_transposed_to_rows_and_columns(tmp_path, shape, zipped):
    import nibabel as nib

    image = nib.Nifti1Image(DEEP.T.reshape(shape), np.diag([0.3, 0.7, 5, 1]))
    data = image.to_bytes()
    (tmp_path / "a").write_bytes(gzip.compress(data) if zipped else data)
    scan = read(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], DEEP)
    np.testing.assert_allclose(scan.spacing_mm, (0.7, 0.3), rtol=1e-6)
    assert scan.meta.format == "NIFTI"


def test_nifti_scaling_becomes_scale_and_intercept(tmp_path):
    import nibabel as nib

    data = bytearray(nib.Nifti1Image(GRAY.T, np.eye(4)).to_bytes())
    data[112:120] = struct.pack("<2f", 2, -1000)  # scl_slope, scl_inter
    (tmp_path / "a").write_bytes(data)
    scan = read(tmp_path / "a")
    assert scan.array.dtype == np.uint8
    np.testing.assert_array_equal(scan.physical()[0], GRAY * 2.0 - 1000)


def test_a_nifti_volume_is_set_aside(tmp_path):
    import nibabel as nib

    (tmp_path / "a").write_bytes(nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4)).to_bytes())
    assert "set-aside: a volume (4 x 5 x 6)" in reason(tmp_path / "a")


def test_values_that_are_not_finite_are_replaced_and_noted(tmp_path):
    import nibabel as nib

    array = np.array([[1, np.nan], [np.inf, -3]], np.float32)
    (tmp_path / "a").write_bytes(nib.Nifti1Image(array.T, np.eye(4)).to_bytes())
    scan = read(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], [[1, -3], [-3, -3]])
    assert scan.meta.notes == ("2 values that are not finite became the smallest one",)


# --- real data ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_every_quirky_dicom_is_read_or_has_a_reason(shared_data):
    import pandas as pd

    root = shared_data("dicom_2d_quirks")
    hashes: dict[tuple, set[str]] = {}
    outcome = []
    for row in pd.read_csv(root / "labels.csv", dtype=str, keep_default_na=False).to_dict(
        "records"
    ):
        try:
            scan = read(root / row["path"])
        except Unreadable as error:
            outcome.append((error.status, error.reason))
            continue
        outcome.append(("ok", "-"))
        meta = scan.meta
        if row["pixel_hash"] and "PALETTE" not in meta.mode:
            key = (row["pixel_hash"], meta.scale, meta.intercept, meta.mode, scan.array.dtype)
            hashes.setdefault(key, set()).add(pixel_digest(scan.physical()))
    assert len(outcome) == 128
    assert {status for status, _ in outcome} == {"ok", "set-aside", "unreadable"}
    assert all(why and "\n" not in why for _, why in outcome)
    assert outcome.count(("ok", "-")) >= 80
    assert all(len(found) == 1 for found in hashes.values())
    assert len(hashes) > 30


def test_two_readers_agree_on_real_ct(shared_data):
    root = shared_data("dicom_2d_quirks") / "files"
    for name in (
        "CT_small.dcm",
        "MR_small.dcm",
        "693_J2KR.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
    ):
        one, other = read(root / name).physical()[0], gdcm(root / name)
        measured = other != -3024  # padding of 693_J2KR, which GDCM keeps
        np.testing.assert_array_equal(one[measured], other[measured])
        assert measured.all() == (name != "693_J2KR.dcm")


def test_a_nifti_slice_of_a_real_volume(tmp_path, shared_data):
    import nibabel as nib

    path = next((shared_data("hippocampus_nifti") / "imagesTr").glob("*.nii.gz"))
    assert "a volume" in reason(path)
    volume = nib.load(path)
    middle = volume.slicer[:, :, 10:11]
    nib.save(middle, tmp_path / "slice.nii.gz")
    expected = middle.get_fdata()[:, :, 0].T
    np.testing.assert_allclose(read(tmp_path / "slice.nii.gz").physical()[0], expected, rtol=1e-6)
