"""Converted scans as NIfTI and 16-bit PNG: what a viewer opens is the scan, to the value and the millimetre."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from workflows import make_clone

from fewscans.config.stages import ConvertParams, ExportParams
from fewscans.convert import read
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.errors import UserError
from fewscans.export import export_scans

HEADER = ["scan", "file", "shape", "spacing_mm", "slope", "intercept", "unit", "placed"]


def exported(converted: Path, out: Path, **params) -> pd.DataFrame:
    export_scans(ExportParams(dataset="d", **params), [converted], out)
    return pd.read_csv(out / "files.csv", keep_default_na=False, dtype={"spacing_mm": str})


def convert_volumes(root: Path, out: Path) -> Path:
    write_chunk(ConvertParams(dataset="d", root=str(root), ndim=3), out)
    return out


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_a_volume_comes_back_as_it_was_read(tmp_path, dtype):
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(4, 5, 6)) * 50 + 100).astype(dtype)
    # Stored from left to right and feet down: the file says so, and RAS is what comes out.
    affine = np.array([[-1.5, 0, 0, 30], [0, 0, 2.0, -10], [0, -3.0, 0, 5], [0, 0, 0, 1]])
    (tmp_path / "raw" / "a").mkdir(parents=True)
    path = tmp_path / "raw" / "a" / "v.nii.gz"
    nib.save(nib.Nifti1Image(data, affine), path)
    table = exported(convert_volumes(tmp_path / "raw", tmp_path / "c"), tmp_path / "out")
    assert list(table.columns) == HEADER
    (row,) = table.to_dict("records")
    assert (row["slope"], row["intercept"]) == (1, 0)
    image = nib.load(tmp_path / "out" / row["file"])
    canonical = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(image.get_fdata(), canonical.get_fdata())
    np.testing.assert_allclose(image.affine[:3, :3], canonical.affine[:3, :3])
    assert image.header.get_xyzt_units()[0] == "mm"
    again, first = read(tmp_path / "out" / row["file"], 3), read(path, 3)
    np.testing.assert_array_equal(again.physical(), first.physical())
    assert again.spacing_mm == first.spacing_mm
    assert again.meta.notes == ()
    # Another reader (in LPS) sees the same sizes and values.
    other = sitk.ReadImage(str(tmp_path / "out" / row["file"]))
    assert other.GetSpacing() == pytest.approx((1.5, 2.0, 3.0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other), first.physical()[0])


def test_a_volume_without_spacing_says_so_and_a_coloured_one_keeps_its_colours(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (2, 6, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", train_images=colour, train_labels=np.zeros((2, 1), int))
    write_chunk(ConvertParams(dataset="d", npz=str(tmp_path / "d.npz"), ndim=3), tmp_path / "c")
    table = exported(tmp_path / "c", tmp_path / "out")
    index, read_pixels = read_converted([tmp_path / "c"])
    for row in index.to_dict("records"):
        (name,) = table.loc[table["scan"] == row["scan"], "file"]
        image = nib.load(tmp_path / "out" / name)
        assert image.header.get_xyzt_units()[0] == "unknown"
        np.testing.assert_array_equal(
            np.moveaxis(image.get_fdata(), 3, 0), read_pixels(row).transpose(0, 3, 2, 1)
        )


def test_images_become_16_bit_pictures_that_lead_back_to_their_values(
    scan_folder, make_converted, tmp_path
):
    converted = make_converted(scan_folder(9))
    table = exported(converted, tmp_path / "out").set_index("scan")
    index, read_pixels = read_converted([converted])
    assert len(table) == len(index) == 9
    assert {"dicom", "png"} <= {kind.lower() for kind in index["format"]}
    for row in index.to_dict("records"):
        about = table.loc[row["scan"]]
        with Image.open(tmp_path / "out" / about["file"]) as image:
            assert image.mode == "I;16"
            stored = np.asarray(image)
        assert stored.max() > 32767  # a viewer shows the whole range
        physical = stored * about["slope"] + about["intercept"]
        np.testing.assert_allclose(physical, read_pixels(row)[0], atol=1e-6)  # whole numbers: exact
        assert about["unit"] == row["unit"]
        assert about["spacing_mm"] == " ".join(f"{step:g}" for step in row["spacing_mm"])


def test_colours_and_constants_and_fractions(tmp_path):
    root = tmp_path / "raw" / "a"
    root.mkdir(parents=True)
    colour = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(colour).save(root / "colour.png")
    Image.fromarray(np.full((5, 5), 9, np.uint8)).save(root / "flat.png")
    fractions = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    Image.fromarray(fractions, mode="F").save(root / "fractions.tif")
    write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw")), tmp_path / "c")
    table = exported(tmp_path / "c", tmp_path / "out").set_index("scan")
    index, _ = read_converted([tmp_path / "c"])
    back = {}
    for row in index.to_dict("records"):
        about = table.loc[row["scan"]]
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / about["file"])))
        back[Path(row["path"]).stem] = image * about["slope"] + about["intercept"]
    np.testing.assert_allclose(back["colour"], colour, atol=1e-6)
    np.testing.assert_array_equal(back["flat"], 9)
    step = np.ptp(fractions) / 65535
    np.testing.assert_allclose(back["fractions"], fractions, atol=0.51 * step)


def test_nothing_of_the_source_goes_with_them_and_the_bytes_are_the_same(
    scan_folder, make_converted, tmp_path
):
    converted = make_converted(scan_folder(4))
    for name in ("one", "two"):
        exported(converted, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    paths = read_converted([converted])[0]["path"]
    for name in files:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        for path in paths:
            assert Path(path).stem not in name
            assert Path(path).stem.encode() not in content


def test_some_scans_by_key_or_path_and_a_way_out_for_others(scan_folder, make_converted, tmp_path):
    converted = make_converted(scan_folder(6))
    index, _ = read_converted([converted])
    asked = [index["scan"][1], index["path"][4]]
    table = exported(converted, tmp_path / "out", scans=asked)
    assert table["scan"].tolist() == [index["scan"][1], index["scan"][4]]
    with pytest.raises(UserError, match=r"is no scan that was converted.*Did you mean"):
        exported(converted, tmp_path / "out", scans=[index["path"][0] + "x"])
    assert (tmp_path / "out" / "files.csv").is_file()  # what was there is whole


def test_an_export_takes_the_place_of_an_older_one_and_of_nothing_else(
    scan_folder, make_converted, tmp_path
):
    converted = make_converted(scan_folder(4))
    exported(converted, tmp_path / "out")
    (tmp_path / "out.part").mkdir()  # of a job that was killed
    first = read_converted([converted])[0]["scan"][0]
    exported(converted, tmp_path / "out", scans=[first])
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert not (tmp_path / "out.part").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        exported(converted, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"


def test_the_script_writes_a_side_car(scan_folder, make_converted, tmp_path, script):
    converted = make_converted(scan_folder(4))
    words = [
        "--params",
        '{"dataset": "d"}',
        "--converted",
        str(converted),
        "--out",
        str(tmp_path / "o"),
    ]
    assert script("export").main([*words, "--sidecar", str(tmp_path / "side.json")]) == 0
    assert '"scans": 4' in (tmp_path / "side.json").read_text()
    assert script("export").main([*words[:3], str(tmp_path), *words[4:]]) == 2


def test_real_volumes_come_back(shared_data, tmp_path):
    root = shared_data("hippocampus_nifti")
    paths = sorted(root.rglob("hippocampus_*.nii.gz"))[:3]
    for number, path in enumerate(paths):
        (tmp_path / "raw" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / "a" / f"{number}.nii.gz").write_bytes(path.read_bytes())
    converted = convert_volumes(tmp_path / "raw", tmp_path / "c")
    table = exported(converted, tmp_path / "out").set_index("scan")
    index, _ = read_converted([converted])
    for row in index.to_dict("records"):
        original = nib.as_closest_canonical(nib.load(tmp_path / "raw" / row["path"]))
        image = nib.load(tmp_path / "out" / table.loc[row["scan"], "file"])
        np.testing.assert_allclose(image.get_fdata(), original.get_fdata(), rtol=1e-6)
        np.testing.assert_allclose(image.header.get_zooms(), original.header.get_zooms()[:3])


def test_the_workflow_exports_where_it_is_asked_and_not_else(tmp_path):
    clone = make_clone(tmp_path / "clone")
    assert "export" not in clone.to_run()
    clone.run("exports", "--cores", "1")
    table = pd.read_csv(clone.folder / "work/tiny/export/files.csv")
    assert len(table) > 20
    assert all((clone.folder / "work/tiny/export" / name).is_file() for name in table["file"])
    assert clone.to_run("exports") == {}
