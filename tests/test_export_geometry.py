"""An exported volume lies where the original did: world coordinates in other readers, and against plain arithmetic."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation
from series_factory import Series

from fewscans.config.stages import ConvertParams, ExportParams
from fewscans.contracts import read_table
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.export import affine_of, export_scans

NEAR = 1e-3  # mm
TURN = Rotation.from_euler("xyz", [20, -12, 33], degrees=True).as_matrix()
STEPS = np.array([0.7, 0.9, 2.5])
ORIGIN = np.array([-81.25, 40.5, 912.125])
# From left to right, feet down, and axes in another order; a shear as a registration leaves it.
TURNS = {
    "plain": np.eye(3),
    "flipped": TURN @ np.diag([-1.0, 1, -1]),
    "axes": TURN @ np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    "sheared": TURN @ np.array([[-1.0, 0.1, 0], [0, 1, 0.2], [0, 0, 1]]),
}


def exported(root: Path, out: Path, **settings) -> tuple[Path, pd.Series]:
    """(file, its row in files.csv) of the one volume below `root`."""
    write_chunk(ConvertParams(dataset="d", root=str(root), ndim=3, **settings), out / "c")
    export_scans(ExportParams(dataset="d"), [out / "c"], out / "e")
    (row,) = pd.read_csv(out / "e/files.csv").to_dict("records")
    return out / "e" / row["file"], row


def places(path: Path) -> dict[float, np.ndarray]:
    """Value -> world coordinates (RAS, mm) of the voxels above 0, as nibabel has them."""
    image = nib.load(path)
    values = image.get_fdata()
    return {values[tuple(at)]: image.affine[:3] @ [*at, 1] for at in np.argwhere(values > 0)}


def places_by_simpleitk(path: Path) -> dict[float, np.ndarray]:
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    return {
        values[tuple(at)]: np.multiply([-1, -1, 1], image.TransformIndexToPhysicalPoint(at[::-1].tolist()))
        for at in np.argwhere(values > 0)
    }  # fmt: skip


def assert_same(one: dict[float, np.ndarray], other: dict[float, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 3
    for value, where in one.items():
        np.testing.assert_allclose(other[value], where, rtol=0, atol=NEAR, err_msg=str(value))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("unit", ["mm", "meter"])
def test_marked_voxels_of_a_nifti_stay_where_they_are(tmp_path, turn, unit):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNS[turn] * STEPS, ORIGIN
    data = np.zeros((9, 11, 7), np.int16)
    for value, at in enumerate([(0, 0, 0), (8, 0, 0), (0, 10, 0), (0, 0, 6), (5, 2, 3)], 100):
        data[at] = value
    (tmp_path / "raw/a").mkdir(parents=True)
    scale = 1.0 if unit == "mm" else 1e-3
    image = nib.Nifti1Image(data, np.diag([scale, scale, scale, 1]) @ affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "raw/a/v.nii.gz")
    made, row = exported(tmp_path / "raw", tmp_path)
    expected = {
        value: where / scale for value, where in places(tmp_path / "raw/a/v.nii.gz").items()
    }
    assert_same(expected, places(made))
    header = nib.load(made).header
    assert (row["placed"], header.get_xyzt_units()[0]) == ("yes", "mm")
    assert int(header["sform_code"]) == 2  # the file does not say that it is the scanner
    assert int(header["qform_code"]) == (0 if turn == "sheared" else 2)
    if turn != "sheared":  # SimpleITK has no shears
        assert_same(expected, places_by_simpleitk(made))
        np.testing.assert_allclose(nib.load(made).get_qform(), header.get_sform(), atol=1e-4)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("tilt", [0, 15])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_dicom_series_tells_its_own_places(tmp_path, write_dicom, tilt, axis, private):
    """Values are a coordinate, which no interpolation along a line changes: so each voxel says where it should be."""
    row, column = TURN[:, 0], TURN[:, 1]
    normal = np.cross(row, column)
    # The table moves along another line than the normal where the gantry is tilted.
    along = np.cos(np.radians(tilt)) * normal + np.sin(np.radians(tilt)) * column
    positions = [ORIGIN + 3.0 * k * along for k in range(8)]
    down, right = np.mgrid[:24, :10].astype(float)[..., None]
    planes = [at + 0.8 * down * column + 0.6 * right * row for at in positions]  # LPS
    low = np.min(planes, axis=(0, 1, 2))[axis] - 1
    slope = 1 / 1024
    series = Series(write_dicom, tmp_path / "raw/a")
    for at, plane in zip(positions, planes, strict=True):
        stored = np.rint((plane[..., axis] - low) / slope).astype(np.uint16)
        series.slice(
            stored, 0, ImagePositionPatient=at.tolist(), ImageOrientationPatient=[*row, *column],
            PixelSpacing=[0.8, 0.6], RescaleSlope=slope, RescaleIntercept=0, Modality="MR",
        )  # fmt: skip
    hidden = {}
    if private:
        (tmp_path / "key").write_bytes(bytes(range(32)))
        (tmp_path / "key").chmod(0o600)
        hidden = {"private": str(tmp_path / "private"), "key": str(tmp_path / "key")}
    made, about = exported(tmp_path / "raw", tmp_path, **hidden)
    image = nib.load(made)
    assert about["placed"] == "yes"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    values = image.get_fdata() + low
    indices = np.argwhere(np.ones(values.shape))
    world = (image.affine[:3, :3] @ indices.T + image.affine[:3, 3:]).T * [-1, -1, 1]  # to LPS
    # Which of them lie in a plane that was measured, by its own position; beyond its edge there is filling.
    nearest = np.argmin(np.abs((world[:, None] - positions) @ normal), axis=1)
    beside = world - np.array(positions)[nearest]
    at = np.stack([beside @ column / 0.8, beside @ row / 0.6], axis=1)
    inside = ((at > -1e-3) & (at < np.array([23, 9]) + 1e-3)).all(axis=1)
    assert inside.sum() >= 8 * 23 * 10
    np.testing.assert_allclose(beside @ normal, 0, atol=NEAR)
    np.testing.assert_allclose(
        values[tuple(indices[inside].T)], world[inside, axis], rtol=0, atol=NEAR
    )
    assert_same_grid(made, image.affine)


def assert_same_grid(path: Path, affine: np.ndarray) -> None:
    image = sitk.ReadImage(str(path))
    for index in [(0, 0, 0), tuple(n - 1 for n in image.GetSize())]:
        there = np.multiply([-1, -1, 1], image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(there, affine[:3] @ [*index, 1], rtol=0, atol=NEAR)


def test_a_place_that_nobody_says_is_said_to_be_none(tmp_path):
    np.savez(tmp_path / "d.npz", train_images=np.ones((1, 6, 6, 6)), train_labels=[[0]])
    write_chunk(ConvertParams(dataset="d", npz=str(tmp_path / "d.npz"), ndim=3), tmp_path / "c")
    export_scans(ExportParams(dataset="d"), [tmp_path / "c"], tmp_path / "e")
    (row,) = pd.read_csv(tmp_path / "e/files.csv").to_dict("records")
    assert row["placed"] == "no"
    np.testing.assert_array_equal(nib.load(tmp_path / "e" / row["file"]).affine, np.eye(4))


def test_a_place_that_is_no_number_is_none_and_orientation_is_kept(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    content = bytearray(image.to_bytes())
    content[292:296] = np.float32(np.nan).tobytes()  # srow_x[3]
    (tmp_path / "raw/a/v.nii").write_bytes(content)
    _, row = exported(tmp_path / "raw", tmp_path)
    assert (row["placed"], row["spacing_mm"]) == ("no", "1 1 1")


def test_nifti_without_orientation_is_noted(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    nib.save(image, tmp_path / "raw/a/v.nii")
    exported(tmp_path / "raw", tmp_path)
    (note,) = read_table(tmp_path / "c/index.parquet", "index")["note"]
    assert "no orientation in its header: axes taken as left, anterior, superior" in note


def test_images_and_slices_have_no_affine_and_rows_are_the_same_bytes(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURN * STEPS, ORIGIN
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "raw/a/v.nii")
    one, two, cut = (tmp_path / name for name in ("one", "two", "cut"))
    for out in (one, two):
        write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3), out)
    assert (one / "index.parquet").read_bytes() == (two / "index.parquet").read_bytes()
    index, _ = read_converted([one])
    canonical = nib.as_closest_canonical(nib.load(tmp_path / "raw/a/v.nii")).affine
    np.testing.assert_allclose(affine_of(index.iloc[0]), canonical, atol=1e-6)
    write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw"), slices={}), cut)
    sliced, _ = read_converted([cut])
    assert len(sliced) == 5
    assert all(affine_of(row) is None for _, row in sliced.iterrows())
