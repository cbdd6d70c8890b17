"""Where two readers can read a file they agree, to the voxel and in geometry: made files and public ones."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import skimage.io
import tifffile
from convert_factory import COLOUR, DEEP, GRAY, save
from series_factory import BODY, Series, converted

from fewscans.convert import Scan, Unreadable, read

# GDCM makes 0 and 255 of a single bit, keeps padding (693), and where a JPEG 2000 stream is signed and the header is
# not, its values wrap around.
DIFFERING = {
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
    "TOSHIBA_J2K_SIZ1_PixRep0.dcm",
    "693_J2KR.dcm",
}
AFFINES = {
    "plain": np.diag([1.0, 2.0, 3.0, 1.0]),
    "flipped": np.diag([-1.0, -2.0, 3.0, 1.0]),
    "turned": np.array([[0, 0, 3.0, 1], [-1.0, 0, 0, 2], [0, 2.0, 0, 3], [0, 0, 0, 1]]),
}
_LEAN = np.radians(20)
AFFINES["oblique"] = np.block([
    [np.array([[np.cos(_LEAN), -np.sin(_LEAN), 0], [np.sin(_LEAN), np.cos(_LEAN), 0], [0, 0, 1]]) * [0.7, 0.7, 3],
     np.array([[-40.0], [12], [7]])],
    [np.zeros((1, 3)), np.ones((1, 1))],
])  # fmt: skip


def by_simpleitk(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """([D, H, W], affine) in RAS, as nibabel turns it, of a volume as SimpleITK has it, which is in LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    plain = nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1]) @ affine, dtype=voxels.dtype)
    turned = nib.as_closest_canonical(plain)
    return np.asanyarray(turned.dataobj).transpose(2, 1, 0), turned.affine


def assert_agrees(scan: Scan, voxels: np.ndarray, affine: np.ndarray, exact: bool = True) -> None:
    """Voxels to the bit, unless `exact` is false; place and spacing to a thousandth of a mm."""
    tolerance = 0 if exact else 1e-6 * float(np.abs(voxels).max())
    assert scan.array.shape[1:] == voxels.shape
    np.testing.assert_allclose(
        scan.physical()[0], voxels.astype(np.float32), rtol=0, atol=tolerance
    )
    assert scan.affine is not None
    np.testing.assert_allclose(scan.affine, affine, rtol=0, atol=1e-5)
    # At the far corner too, where what directions differ by has added up.
    far = [*np.subtract(voxels.shape[::-1], 1), 1]
    np.testing.assert_allclose(scan.affine @ far, affine @ far, rtol=0, atol=1e-3)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    np.testing.assert_allclose(scan.spacing_mm, spacing, rtol=1e-5)


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", ">u2", "<i4", "<f4", ">f8"])
@pytest.mark.parametrize("slope", [None, (0.5, -100.0)])
def test_nibabel_and_simpleitk_on_nifti(tmp_path, affine, dtype, slope):
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(BODY.transpose(2, 1, 0).astype(dtype), AFFINES[affine], header)
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read(tmp_path / "a.nii.gz", 3)
    assert_agrees(scan, *by_simpleitk(sitk.ReadImage(str(tmp_path / "a.nii.gz"))))


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("end", [".nrrd", ".mha", ".mhd"])
def test_nrrd_and_metaimage_and_the_nifti_of_the_same_volume(tmp_path, affine, end):
    nib.save(nib.Nifti1Image(BODY.transpose(2, 1, 0), AFFINES[affine]), tmp_path / "a.nii")
    image = sitk.ReadImage(str(tmp_path / "a.nii"))
    sitk.WriteImage(image, str(tmp_path / f"b{end}"))
    nifti, other = read(tmp_path / "a.nii", 3), read(tmp_path / f"b{end}", 3)
    assert nifti.affine is not None
    assert_agrees(other, nifti.physical()[0], nifti.affine)
    assert_agrees(other, *by_simpleitk(sitk.ReadImage(str(tmp_path / f"b{end}"))))


@pytest.mark.parametrize("slope", [1, 2])
def test_a_dicom_series_and_simpleitks_reader_of_series(tmp_path, write_dicom, slope):
    Series(write_dicom, tmp_path / "s").body(RescaleSlope=slope, RescaleIntercept=-1024)
    scan = converted(tmp_path, "s")["s"]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    assert_agrees(scan, *by_simpleitk(reader.Execute()))


@pytest.mark.parametrize("pixels", [GRAY, DEEP, COLOUR], ids=["gray", "deep", "colour"])
@pytest.mark.parametrize("end", [".png", ".tif", ".bmp"])
def test_pillow_and_scikit_image_on_pictures(tmp_path, pixels, end):
    if end == ".bmp" and pixels is DEEP:
        pytest.skip("BMP has 8 bits")
    path = save(tmp_path / f"a{end}", pixels)
    other = tifffile.imread(path) if end == ".tif" else skimage.io.imread(path)
    expected = np.moveaxis(other, -1, 0) if other.ndim == 3 else other[None]
    np.testing.assert_array_equal(read(path).array, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_pillow_and_tifffile_on_numbers_of_tiff(tmp_path, order, dtype):
    pixels = (DEEP % 250).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order)
    np.testing.assert_array_equal(
        read(tmp_path / "a.tif").array[0], tifffile.imread(tmp_path / "a.tif")
    )


# --- public files ---------------------------------------------------------------------------------


def test_nibabel_and_simpleitk_on_public_nifti(shared_data):
    paths = sorted((shared_data("hippocampus_nifti") / "imagesTr").glob("*.nii.gz"))[::10]
    assert paths
    for path in paths:
        assert_agrees(read(path, 3), *by_simpleitk(sitk.ReadImage(str(path))), exact=False)


@pytest.mark.parametrize(
    ("folder", "series"),
    [
        ("mr_hippocrop_study1", 0),
        ("mr_hippocrop_study2", 0),
        ("mr_multi_fragment", 0),
        ("ct_mixed_folder", 2),
    ],
)
def test_simpleitks_reader_of_series_on_public_series(shared_data, tmp_path, folder, series):
    """Those that it can stack: it neither shears a tilt back nor splits what lies at one place."""
    root = shared_data("dicom_series_quirks")
    reader = sitk.ImageSeriesReader()
    uid = reader.GetGDCMSeriesIDs(str(root / folder))[series]
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(root / folder), uid))
    (tmp_path / "labels.csv").write_text(f"path\n{folder}")
    found = converted(root, table=tmp_path / "labels.csv")
    assert_agrees(found[folder], *by_simpleitk(reader.Execute()))


def test_pydicom_and_simpleitk_on_public_single_files(shared_data):
    """Gray files of one frame that both decode, MONOCHROME1 apart, which is turned over here."""
    compared, differing = 0, set()
    for path in sorted(shared_data("dicom_2d_quirks").rglob("*.dcm")):
        other = _gdcm(path)
        try:
            scan = read(path)
        except Unreadable:
            continue
        plain = scan.meta.mode == "MONOCHROME2" and not {"decoded by GDCM"} & set(scan.meta.notes)
        if other is None or not plain or "real world" in " ".join(scan.meta.notes):
            continue
        if not np.allclose(scan.physical()[0], other, rtol=1e-6, atol=0):
            differing.add(path.name)
        compared += 1
    assert differing == DIFFERING
    assert compared >= 20


def _gdcm(path: Path) -> np.ndarray | None:
    """[H, W] by SimpleITK; None where it does not read the file as one gray frame."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        array = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        return None
    return array[0] if array.ndim == 3 and array.shape[0] == 1 else None
