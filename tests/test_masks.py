"""Label maps of scans: read, brought to the scan's grid, crossed by slices, cropped to; and refused."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from convert_factory import save as save_image
from series_factory import BODY, Series

from fewscans import rawdata
from fewscans.config import load
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import read_converted, read_mask, write_chunk
from fewscans.convert.slices import split_slice
from fewscans.convert.table import check_dataset
from fewscans.errors import Problems, UserError
from fewscans.normalise import make_store, normalise_scan
from fewscans.rawdata import fingerprint, resolve
from fewscans.store import Store

SHAPE = (12, 10, 8)
RNG = np.random.default_rng(0)


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)
    return path


def box(shape=SHAPE, label=1):
    """[x, y, z] with a box of `label`."""
    made = np.zeros(shape, np.uint8)
    made[tuple(slice(n // 3, n // 3 + 3) for n in shape)] = label
    return made


def lab(root, mask, affine=None, scan=None):
    save(root / "p.nii", RNG.integers(1, 500, SHAPE).astype(np.int16) if scan is None else scan)
    save(root / "m/p.nii", mask, affine)
    (root / "labels.csv").write_text("path,mask\np.nii,m/p.nii\n")


def convert(root, out, **settings):
    listed = str(root / "labels.csv")
    settings = {"ndim": 3, **settings} if "slices" not in settings else settings
    params = ConvertParams(dataset="d", root=str(root), table=listed, mask_column="mask", **settings)  # fmt: skip
    write_chunk(params, out)
    return read_converted([out])


def only(index):
    assert len(index) == 1
    return index.to_dict("records")[0]


def test_a_mask_of_the_same_grid_comes_along_to_the_voxel(tmp_path):
    lab(tmp_path, box(label=7))
    index, pixels = convert(tmp_path, tmp_path / "out")
    row = only(index)
    np.testing.assert_array_equal(read_mask(row), box(label=7).T)
    assert pixels(row).shape == (1, *SHAPE[::-1])
    assert row["note"] == ""


def test_a_mask_in_another_orientation_is_turned_with_its_scan(tmp_path):
    affine = np.diag([-2.0, 2, 2, 1])
    affine[0, 3] = 2 * (SHAPE[0] - 1)
    lab(tmp_path, np.ascontiguousarray(box()[::-1]), affine)
    row = only(convert(tmp_path, tmp_path / "out")[0])
    np.testing.assert_array_equal(read_mask(row), box().T)
    assert row["note"] == ""


@pytest.mark.parametrize("name", ["m.nrrd", "m.mha"])
def test_a_mask_in_itk_s_formats_lies_where_it_is_in_nifti(tmp_path, name):
    lab(tmp_path, box())
    fine = sitk.GetImageFromArray(np.kron(box(), np.ones((2, 2, 2), np.uint8)).T)
    # LPS: x and y run the other way, and the first voxel is the corner of the scan's first one.
    fine.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    fine.SetOrigin([0.5, 0.5, -0.5])
    sitk.WriteImage(fine, str(tmp_path / name))
    (tmp_path / "labels.csv").write_text(f"path,mask\np.nii,{name}\n")
    row = only(convert(tmp_path, tmp_path / "out")[0])
    np.testing.assert_array_equal(read_mask(row), box().T)
    assert "resampled to the scan's grid" in row["note"]


def test_a_mask_of_another_grid_is_resampled_by_nearest(tmp_path):
    # Twice as fine, and its first voxel at the corner of the scan's first one.
    fine = np.kron(box(), np.ones((2, 2, 2), np.uint8))
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -0.5
    lab(tmp_path, fine, affine)
    row = only(convert(tmp_path, tmp_path / "out")[0])
    np.testing.assert_array_equal(read_mask(row), box().T)
    assert "resampled to the scan's grid" in row["note"]


def test_labels_beyond_the_mask_are_none_and_16_bits_are_kept(tmp_path):
    part = np.full((4, 4, 4), 300, np.uint16)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 4
    lab(tmp_path, part, affine)
    mask = read_mask(only(convert(tmp_path, tmp_path / "out")[0]))
    expected = np.zeros(SHAPE[::-1], np.uint16)
    expected[2:6, 2:6, 2:6] = 300
    np.testing.assert_array_equal(mask, expected)


def away(mm):
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = mm
    return affine


@pytest.mark.parametrize(
    ("mask", "affine", "said"),
    [
        (box(), away(500), "does not overlap the scan"),
        (box((12, 10, 30)), away(18), "has no label within the scan"),
        (box() * 0.5, None, "no whole numbers"),
        (-box().astype(np.int16), None, "labels from -1 to 0"),
        (box()[..., 0], None, "a slice"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, mask, affine, said):
    save(tmp_path / "ok.nii", box())
    lab(tmp_path, mask, affine)
    (tmp_path / "labels.csv").write_text("path,mask\np.nii,m/p.nii\nok.nii,\n")
    index, _ = convert(tmp_path, tmp_path / "out")
    assert index["status"].tolist()[0] == "ok"
    assert index["status"].tolist()[1] != "ok"
    assert index["reason"][1].startswith("its mask: ")
    assert said in index["reason"][1]


def test_a_mask_of_a_dicom_series(write_dicom, tmp_path):
    Series(write_dicom, tmp_path / "p").body()
    # In LPS rows go down to the back and columns to the left; in RAS x and y count backwards.
    labels = np.zeros(BODY.shape[::-1], np.uint8)
    labels[1, 2, 3] = 5
    affine = np.diag([-1.0, -2, 3, 1])
    save(tmp_path / "m.nii.gz", labels, affine)
    (tmp_path / "labels.csv").write_text("path,mask\np,m.nii.gz\n")
    index, pixels = convert(tmp_path, tmp_path / "out")
    row = only(index)
    assert row["note"] == "turned from LPS to RAS"
    assert pixels(row)[0][read_mask(row) == 5].tolist() == [BODY[3, 2, 1]]


def test_masks_of_images_have_the_same_shape(tmp_path):
    for name, shape in (("a", (6, 7)), ("b", (6, 6))):
        save_image(tmp_path / f"{name}.png", RNG.integers(0, 256, (6, 7), dtype=np.uint8))
        save_image(tmp_path / f"{name}m.png", 255 * np.eye(*shape, dtype=np.uint8))
    (tmp_path / "labels.csv").write_text("path,mask\na.png,am.png\nb.png,bm.png\n")
    index, _ = convert(tmp_path, tmp_path / "out", ndim=2)
    np.testing.assert_array_equal(read_mask(index.to_dict("records")[0]), 255 * np.eye(6, 7))
    assert index["status"].tolist() == ["ok", "unreadable"]
    assert "has another shape than the scan (6 x 6 and 6 x 7)" in index["reason"][1]


def test_slices_that_cross_a_mask(tmp_path):
    lab(tmp_path, box(label=2))
    for plane, numbers in (("axial", [3, 4, 5]), ("coronal", [4, 5, 6]), ("sagittal", [5, 6, 7])):
        rule = {"plane": plane, "crossing_mask": True}
        index, _ = convert(tmp_path, tmp_path / plane, slices=rule)
        assert [split_slice(path)[1:] for path in index["path"]] == [(plane, n) for n in numbers]
        masks = [read_mask(row) for row in index.to_dict("records")]
        assert [int((mask == 2).sum()) for mask in masks] == [9, 9, 9]
    first, volume = masks[0], box(label=2)
    np.testing.assert_array_equal(first, volume[4, ::-1, ::-1].T)
    one, _ = convert(tmp_path, tmp_path / "one", slices={"crossing_mask": True, "central": 1})
    assert one["path"].tolist() == ["p.nii#axial-4"]


def test_no_slice_where_a_mask_is_empty_or_missing(tmp_path):
    lab(tmp_path, box() * 0)
    save(tmp_path / "q.nii", box())
    save(tmp_path / "r.nii", box())
    (tmp_path / "labels.csv").write_text("path,mask\np.nii,m/p.nii\nq.nii,\nr.nii,r.nii\n")
    index, _ = convert(tmp_path, tmp_path / "out", slices={"crossing_mask": True})
    assert index["reason"].tolist()[:2] == ["no slice crosses its mask", "has no mask to be crossed"]  # fmt: skip
    assert index["status"].tolist() == ["set-aside"] * 2 + ["ok"] * 3


def test_masks_are_found_by_the_table_or_told(tmp_path):
    lab(tmp_path, box())
    (tmp_path / "labels.csv").write_text("path,mask\np.nii,../m.nii\n")
    with pytest.raises(UserError, match=r"leaves root by '\.\.'"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "labels.csv").write_text("path,mask\np.nii,m/q.nii\n")
    with pytest.raises(UserError, match=r"none of the 1 files is there(.|\n)*m/q.nii"):
        convert(tmp_path, tmp_path / "out")


def test_a_mask_is_cropped_to_and_measured_in(tmp_path):
    scan = 10 * box().astype(np.int16) + RNG.integers(0, 5, SHAPE).astype(np.int16)
    scan[0, 0, 0] = 500
    lab(tmp_path, box(), scan=scan)
    convert(tmp_path, tmp_path / "out")
    recipe = {"size": 16, "ndim": 3, "foreground": "mask", "margin": 0, "normalise": "minmax"}
    params = NormaliseParams.model_validate({"dataset": "d", "recipe": recipe})
    make_store(params, [tmp_path / "out"], tmp_path / "store")
    store = Store.open(tmp_path / "store")
    # The bright voxel outside is gone, and (z, y, x) of the box are those of the mask.
    assert list(store.rows["box"][0]) == [2, 5, 3, 6, 4, 7]
    inside = scan[4:7, 3:6, 2:5]
    low, scale = float(store.rows["intercept"][0]), float(store.rows["scale"][0])
    assert (low, low + scale) == (inside.min(), inside.max())
    # With a margin, what is measured may be the mask alone.
    image = np.where(box().T, 3.0, 100.0)[None] + np.arange(SHAPE[0])
    wide = NormaliseParams.model_validate(
        {"dataset": "d", "recipe": {**recipe, "margin": 1, "within": "foreground"}}
    ).recipe
    made = normalise_scan(image, [2.0, 2, 2], wide, box().T)
    assert made.bounds == (3 + 4, 3 + 6)


def test_a_recipe_that_crops_to_masks_names_scans_without(tmp_path):
    lab(tmp_path, box())
    save(tmp_path / "q.nii", box() + 1)
    (tmp_path / "labels.csv").write_text("path,mask\np.nii,m/p.nii\nq.nii,\n")
    convert(tmp_path, tmp_path / "out")
    recipe = {"size": 16, "ndim": 3, "foreground": "mask"}
    params = NormaliseParams.model_validate({"dataset": "d", "recipe": recipe})
    with pytest.raises(UserError, match="1 scans have no mask with a label") as caught:
        make_store(params, [tmp_path / "out"], tmp_path / "store")
    assert "'q.nii'" in str(caught.value)
    (tmp_path / "labels.csv").write_text("path\nq.nii\n")
    convert(tmp_path, tmp_path / "none")
    with pytest.raises(UserError, match="1 scans have no mask with a label"):
        make_store(params, [tmp_path / "none"], tmp_path / "store")


def test_another_mask_converts_again_and_tables_are_checked_before_any_job(tmp_path):
    lab(tmp_path / "raw", box())
    raw = {
        "datasets": {"d": {"root": str(tmp_path / "raw"), "table": "labels.csv"}},
        "recipes": {"m": {"ndim": 3}},
        "baselines": ["majority"],
    }
    config = load(raw)
    before = fingerprint(config, "d")
    rawdata._files.cache_clear()
    assert fingerprint(config, "d") == before
    save(tmp_path / "raw/m/p.nii", box((12, 10, 9)))
    rawdata._files.cache_clear()
    assert fingerprint(config, "d") != before
    (tmp_path / "raw/m/p.nii").unlink()
    problems = Problems("data")
    check_dataset("d", config.datasets["d"], resolve(config, "d"), problems, pool=True, ndim=3)
    said = dict(problems.lines)
    assert "m/p.nii" in said["datasets.d.columns.mask"]
