"""DICOM series to volumes: grouped and ordered by geometry, corrected where that is well defined, else refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from series_factory import BODY, TILTED, Series, as_nifti, converted

from fewscans.convert import Scan, read
from fewscans.errors import UserError

LOW_LEFT_BACK = np.ascontiguousarray(BODY[:, ::-1, ::-1])  # LPS turned to RAS


@pytest.fixture
def series(write_dicom, tmp_path):
    return Series(write_dicom, tmp_path / "p1")


def only(found: dict[str, Scan | str]) -> Scan:
    """The one scan there is."""
    (scan,) = found.values()
    assert isinstance(scan, Scan), scan
    return scan


def test_order_is_that_of_places_and_both_readers_agree(series, tmp_path):
    series.body()
    found = converted(tmp_path, "p1")
    assert list(found) == ["p1"]
    scan = only(found)
    np.testing.assert_array_equal(scan.array[0], LOW_LEFT_BACK)
    assert scan.spacing_mm == (3.0, 2.0, 1.0)
    other = read(as_nifti(tmp_path / "v.nii", BODY, np.diag([1.0, 2.0, 3.0, 1.0])), 3)
    np.testing.assert_array_equal(scan.array, other.array)
    assert (scan.spacing_mm, scan.meta.notes) == (other.spacing_mm, other.meta.notes)


@pytest.mark.parametrize(
    ("cosines", "axis"),
    [([0, 1, 0, 0, 0, -1], 0), ([1, 0, 0, 0, 0, -1], 1), ([-1, 0, 0, 0, 1, 0], 2), (TILTED, 2)],
)
def test_any_orientation_is_turned_as_nifti_is(series, tmp_path, cosines, axis):
    row, column = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(row, column)
    for k in (3, 0, 5, 1, 4, 2):
        at = (3.0 * k * normal).tolist()
        series.slice(BODY[k], 0, ImagePositionPatient=at, ImageOrientationPatient=cosines)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row, 2 * column, 3 * normal
    other = read(as_nifti(tmp_path / "v.nii", BODY, affine), 3)
    scan = only(converted(tmp_path, "p1"))
    np.testing.assert_array_equal(scan.array, other.array)
    np.testing.assert_allclose(scan.spacing_mm, other.spacing_mm, rtol=1e-6)
    assert abs(normal[axis]) > 0.9


def test_two_patients_of_one_folder_are_two_scans_with_names_that_stay(series, tmp_path):
    series.body(PatientID="a")
    series.body(body=BODY[:, :4] + 1000, SeriesInstanceUID="1.2.4", SeriesNumber=2, PatientID="b")
    found = converted(tmp_path, "p1")
    assert list(found) == ["p1#1", "p1#2"]
    assert found["p1#1"].array.max() < 1000 <= found["p1#2"].array.min()
    # Files under other names, in another folder beside it: the same scans.
    renamed = tmp_path / "p0"
    renamed.mkdir()
    for n, file in enumerate(sorted((tmp_path / "p1").iterdir(), reverse=True)):
        shutil.copy(file, renamed / f"{n:04d}.x")
    both = converted(tmp_path, "p1", "p0")
    for number in ("#1", "#2"):
        np.testing.assert_array_equal(both[f"p0{number}"].array, found[f"p1{number}"].array)
    # One patient's slices under the other's series are still the other's.
    series.body(body=BODY + 2000, PatientID="c", at=[3.0 * k + 1 for k in range(6)])
    assert len(converted(tmp_path, "p1")) == 3


def test_a_number_names_one_of_several(series, tmp_path):
    series.body()
    series.body(body=BODY + 1000, SeriesInstanceUID="1.2.4", SeriesNumber=2)
    second = converted(tmp_path, "p1#2")
    assert list(second) == ["p1#2"]
    assert only(second).array.min() == 1000
    assert "no such volume; it holds 2 volumes" in converted(tmp_path, "p1#3")["p1#3"]
    with pytest.raises(UserError, match="named by the row of a folder too"):
        converted(tmp_path, "p1", "p1#2")


def test_what_is_no_slice_is_set_aside_by_name(series, tmp_path):
    series.body()
    cases = {
        "a localiser": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "derived from other images (MPR)": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        "where it lies": {"ImagePositionPatient": None},
        "no pair of directions": {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        "does not say its spacing": {"PixelSpacing": None},
        "holds no image (SR)": {"PixelData": None, "Modality": "SR"},
    }
    names = {}
    for z, (said, tags) in enumerate(cases.items()):
        made = series.slice(BODY[0], 100 + z, SeriesInstanceUID=f"1.9.{z}", **tags)
        if "PixelData" in tags:
            _drop_pixels(made)
        names[f"p1/{made.name}"] = said
    found = converted(tmp_path, "p1")
    assert isinstance(found.pop("p1"), Scan)
    assert set(found) == set(names)
    for name, said in names.items():
        assert said in found[name]


def _drop_pixels(path):
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


def test_slopes_of_slices_come_out_right(series, tmp_path):
    for k in (2, 0, 1):
        series.slice(BODY[k], 3 * k, RescaleSlope=k + 1, RescaleIntercept=-10 * k, Modality="PT")
    scan = only(converted(tmp_path, "p1"))
    expected = [LOW_LEFT_BACK[k] * (k + 1) - 10 * k for k in range(3)]
    np.testing.assert_array_equal(scan.physical()[0], expected)
    assert scan.array.dtype == np.float32
    assert "scaled differently" in "; ".join(scan.meta.notes)


def test_low_is_white_and_stored_numbers_are_kept(series, tmp_path):
    series.body(body=BODY.astype(np.uint16), PhotometricInterpretation="MONOCHROME1", Modality="MR")
    scan = only(converted(tmp_path, "p1"))
    assert (scan.array.dtype, scan.meta.scale) == (np.uint16, -1.0)
    np.testing.assert_array_equal(scan.physical()[0], 65535 - LOW_LEFT_BACK.astype(np.float32))


def test_doubled_slices_are_left_out_where_they_are_equal(series, tmp_path):
    series.body()
    series.slice(BODY[2], 6)
    scan = only(converted(tmp_path, "p1"))
    np.testing.assert_array_equal(scan.array[0], LOW_LEFT_BACK)
    assert "a doubled slice, equal to the first at the place, left out" in scan.meta.notes
    series.slice(BODY[2] + 1, 6)
    said = converted(tmp_path, "p1")["p1"]
    assert "set-aside: different slices at one place (6 mm from the first)" in said


def test_missing_slices_are_refused(series, tmp_path):
    series.body(at=[0, 3, 6, 9, 15, 18])
    said = converted(tmp_path, "p1")["p1"]
    assert (
        said == "set-aside: a slice is missing: up to 6 mm between neighbours where 3 mm is usual"
    )


def test_uneven_slices_without_gaps_are_resampled_and_a_ramp_stays_one(series, tmp_path):
    heights = [0, 3, 5, 7, 10, 13]
    ramp = np.stack([np.full((5, 4), 100 * z, np.int16) for z in heights])
    series.body(at=heights, body=ramp)
    scan = only(converted(tmp_path, "p1"))
    np.testing.assert_array_equal(scan.array[0, :, 0, 0], [0, 260, 520, 780, 1040, 1300])
    assert scan.spacing_mm == (2.6, 2.0, 1.0)
    assert "distances of 2 to 3 mm" in "; ".join(scan.meta.notes)


def test_a_tilted_gantry_is_sheared_back(series, tmp_path):
    # A rod at right angles to the slices: the table moves along z, so it wanders down their columns.
    row, column = np.array(TILTED[:3]), np.array(TILTED[3:])
    normal = np.cross(row, column)
    down, right = np.mgrid[:40, :5].astype(float)
    wandering = []
    for k in range(8):
        pixels = np.array([0, 0, 4.0 * k]) + down[..., None] * column + right[..., None] * row
        beside = pixels - (20 * column + 2 * row)
        beside = beside - (beside @ normal)[..., None] * normal
        rod = (1000 * np.exp(-(beside**2).sum(axis=-1) / 8)).astype(np.int16)
        wandering.append(middle(rod))
        series.slice(rod, 4 * k, ImageOrientationPatient=TILTED, PixelSpacing=[1, 1])
    assert np.ptp(wandering) > 9
    scan = only(converted(tmp_path, "p1"))
    assert scan.spacing_mm[0] == pytest.approx(4 * TILTED[4], abs=1e-6)
    assert "tilt of 20.0 degrees sheared back" in scan.meta.notes
    assert scan.array.shape == (1, 8, 50, 5)  # nothing is cut off
    assert np.ptp([middle(plane) for plane in scan.array[0]]) < 0.02


def middle(plane: np.ndarray) -> float:
    """Row of the centre of mass."""
    weights = plane.astype(float).sum(axis=1)
    return float(weights @ np.arange(len(weights)) / weights.sum())


def test_slices_beside_each_other_are_refused(series, tmp_path):
    for k, right in enumerate([0, 4, -4, 3]):
        series.slice(BODY[k], 0, ImagePositionPatient=[right, 0, 3 * k])
    assert "do not lie on a line" in converted(tmp_path, "p1")["p1"]


def test_repetitions_are_split_by_what_tells_them_apart(series, tmp_path):
    for time in (2, 1, 10):
        series.body(body=BODY + 100 * time, TemporalPositionIdentifier=time)
    found = converted(tmp_path, "p1")
    assert list(found) == ["p1#1", "p1#2", "p1#3"]
    assert [scan.array.min() for scan in found.values()] == [100, 200, 1000]
    assert found["p1#2"].meta.notes[0] == "repetition 2 of 3, by TemporalPositionIdentifier"


def test_echo_and_time_together_and_a_broken_off_repetition(series, tmp_path):
    for echo in (5, 20):
        for time in (1, 2):
            series.body(body=BODY + echo + time, EchoTime=echo, TemporalPositionIdentifier=time)
    series.slice(BODY[0], 0, EchoTime=20, TemporalPositionIdentifier=3)
    found = converted(tmp_path, "p1")
    whole = [scan.array.min() for scan in found.values() if isinstance(scan, Scan)]
    assert whole == [6, 21, 7, 22]  # times first, then echoes
    (said,) = [text for text in found.values() if isinstance(text, str)]
    assert said.endswith("by TemporalPositionIdentifier and EchoTime, with 1 of 6 slices")


def test_kinds_of_image_are_apart_only_where_they_share_places(series, tmp_path):
    series.body(body=BODY[:3], ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "ADD"])
    series.body([9.0, 12.0, 15.0], BODY[3:], ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    np.testing.assert_array_equal(only(converted(tmp_path, "p1")).array[0], LOW_LEFT_BACK)
    series.body(body=BODY + 500, ImageType=["ORIGINAL", "PRIMARY", "P"])
    found = converted(tmp_path, "p1")
    assert len(found) == 3
    assert found["p1#3"].array.min() == 500


def test_orientations_of_one_series_are_a_localiser_or_apart(series, tmp_path):
    series.body()
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    for k in range(3):
        series.slice(BODY[k], 0, ImagePositionPatient=[0, 3 * k, 0], **coronal)
    said = set(converted(tmp_path, "p1").values())
    assert said == {"set-aside: a localiser: few slices in 2 orientations"}
    # Where one orientation is a whole volume, each is for itself.
    series.body([18.0 + 3 * k for k in range(6)])
    shapes = {scan.array.shape for scan in converted(tmp_path, "p1").values()}
    assert shapes == {(1, 12, 5, 4), (1, 5, 3, 4)}
