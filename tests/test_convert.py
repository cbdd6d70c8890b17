"""Reading scans of every kind, and chunks of them."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fewscans import convert
from fewscans.config.stages import ConvertParams
from fewscans.convert import Unreadable, read
from fewscans.convert.chunks import pixel_digest, read_converted, write_chunk
from fewscans.convert.npz import NpzReader
from fewscans.convert.sources import in_chunk, list_scans
from fewscans.errors import UserError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
SMALL = settings(max_examples=25, deadline=None)


def reason(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        read(path)
    return f"{caught.value.status}: {caught.value.reason}"


def save(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


# --- PNG, JPEG, TIFF, BMP -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize(("array", "mode"), [(GRAY, "L"), (COLOUR, "RGB")])
def test_8_bit_images_keep_every_pixel(tmp_path, kind, array, mode):
    scan = read(save(tmp_path / "a", array, format=kind))
    expected = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    assert scan.array.dtype == np.uint8
    np.testing.assert_array_equal(scan.array, expected)
    assert (scan.meta.format, scan.meta.mode, scan.meta.bits) == (kind, mode, 8)
    assert scan.spacing_mm == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_stays_16_bit(tmp_path, kind):
    scan = read(save(tmp_path / "a", DEEP, format=kind))
    assert scan.array.dtype == np.uint16
    assert scan.meta.bits == 16
    np.testing.assert_array_equal(scan.array[0], DEEP)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_colour_is_not_cut_down_to_8(tmp_path, kind):
    import SimpleITK as sitk  # noqa: N813

    array = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    named = tmp_path / f"a.{kind.lower()}"
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(named))
    path = named.rename(tmp_path / "lies.bmp")
    scan = read(path)
    assert scan.array.dtype == np.uint16
    np.testing.assert_array_equal(scan.array, np.moveaxis(array, -1, 0))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_any_number_type(tmp_path, dtype, order):
    tifffile = pytest.importorskip("tifffile", reason="writes TIFF of these types")
    array = RNG.integers(0, 2**32, (5, 7), dtype=np.uint32).astype(dtype)
    tifffile.imwrite(tmp_path / "a", array, byteorder=order)
    scan = read(tmp_path / "a")
    assert scan.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(scan.array[0], array)


def test_tiff_that_pillow_would_wrap_or_cannot_read(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes TIFF of these types")
    array = np.array([[0, 2**32 - 1]], np.uint32)
    tifffile.imwrite(tmp_path / "a", array)
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], array)
    tifffile.imwrite(tmp_path / "b", array.astype(float))
    assert "TIFF of a kind that is not read" in reason(tmp_path / "b")


def test_white_is_zero_tiff_is_turned_over_in_16_bit_as_in_8(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes TIFF with white = 0")
    for array, top in ((GRAY, 255), (DEEP, 65535)):
        tifffile.imwrite(tmp_path / "a", array, photometric="miniswhite")
        np.testing.assert_array_equal(read(tmp_path / "a").physical()[0], top - array.astype(float))


def test_equal_channels_are_gray_and_the_mode_is_kept(tmp_path):
    scan = read(save(tmp_path / "a", np.stack([GRAY] * 3, axis=-1), format="PNG"))
    gray = read(save(tmp_path / "b", GRAY, format="BMP"))
    assert scan.array.shape == (1, 5, 7)
    assert scan.meta.mode == "RGB"
    assert pixel_digest(scan.physical()) == pixel_digest(gray.physical())


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_that_is_the_same_everywhere_is_dropped(tmp_path, alpha):
    array = np.concatenate([COLOUR, np.full((5, 7, 1), alpha, np.uint8)], axis=-1)
    scan = read(save(tmp_path / "a", array, format="PNG"))
    np.testing.assert_array_equal(scan.array, np.moveaxis(COLOUR, -1, 0))
    assert scan.meta.mode == "RGBA"
    assert scan.meta.notes == ()


def test_other_alpha_is_put_on_black(tmp_path):
    alpha = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    image = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)])
    image.save(tmp_path / "a", format="PNG")
    scan = read(tmp_path / "a")
    expected = np.floor(GRAY.astype(float) * alpha / 255 + 0.5)
    np.testing.assert_array_equal(scan.array[0], expected)
    assert scan.meta.mode == "LA"
    assert "black" in scan.meta.notes[0]


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (7, 5))
    image.putdata((GRAY % 3).ravel().tolist())
    colours = np.array([[10, 20, 30], [200, 100, 0], [5, 5, 250]], np.uint8)
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / "a", format="PNG")
    scan = read(tmp_path / "a")
    np.testing.assert_array_equal(scan.array, np.moveaxis(colours[GRAY % 3], -1, 0))
    assert scan.meta.mode == "P"


def test_one_bit_images_are_black_and_white(tmp_path):
    save(tmp_path / "a", GRAY > 100, format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], (GRAY > 100) * 255)


def test_jpeg_is_read_and_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a", format="JPEG")
    scan = read(tmp_path / "a")
    assert scan.array.shape == (3, 5, 7)
    assert (scan.meta.format, scan.meta.mode) == ("JPEG", "CMYK")


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    scan = read(save(tmp_path / "a", GRAY, format="PNG", exif=exif))
    np.testing.assert_array_equal(scan.array[0], np.rot90(GRAY, -1))


def test_tiff_orientation_is_applied_once(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes the orientation tag")
    tifffile.imwrite(tmp_path / "a", GRAY, extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], np.rot90(GRAY, -1))


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a", "a.txt"])
def test_the_kind_is_found_from_content_not_from_the_name(tmp_path, name):
    assert read(save(tmp_path / name, GRAY, format="JPEG")).meta.format == "JPEG"


@SMALL
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    )
)
def test_any_gray_image_comes_back_as_it_was(tmp_path_factory, array):
    path = save(tmp_path_factory.mktemp("png") / "a", array, format="PNG")
    scan = read(path)
    assert scan.array.dtype == array.dtype
    np.testing.assert_array_equal(scan.array[0], array)
    np.testing.assert_array_equal(scan.physical()[0], array.astype(np.float32))


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


# --- damaged and foreign files --------------------------------------------------------------------


def test_reasons_are_words(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("<html>no such page</html>" * 20)
    (tmp_path / "gz").write_bytes(gzip.compress(b"x" * 1000))
    assert reason(tmp_path / "empty") == "unreadable: the file is empty (0 bytes)"
    assert "not an image of a kind that is read (PNG, JPEG" in reason(tmp_path / "text")
    assert "gzip of something else" in reason(tmp_path / "gz")
    assert "is a folder" in reason(tmp_path)
    assert "no such file" in reason(tmp_path / "missing")


def every_kind(folder: Path, write_dicom) -> list[Path]:
    import nibabel as nib

    smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    files = [save(folder / kind, smooth, format=kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")]
    files.append(write_dicom(folder / "DICOM", smooth))
    nifti = nib.Nifti1Image(smooth, np.eye(4)).to_bytes()
    (folder / "NIFTI").write_bytes(nifti)
    (folder / "NIFTI.gz").write_bytes(gzip.compress(nifti))
    return [*files, folder / "NIFTI", folder / "NIFTI.gz"]


def test_a_file_cut_anywhere_is_unreadable_or_whole_never_a_crash(tmp_path, write_dicom):
    for path in every_kind(tmp_path, write_dicom):
        data, whole = path.read_bytes(), read(path).physical()
        for share in (0.02, 0.1, 0.3, 0.6, 0.9):
            (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
            try:
                made = read(tmp_path / "cut").physical()
            except Unreadable:
                continue
            else:  # only the trailer was cut
                np.testing.assert_array_equal(made, whole, err_msg=path.name)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_never_a_crash(tmp_path_factory, write_dicom, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = data.draw(st.sampled_from(every_kind(folder, write_dicom)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(content), 700) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(Unreadable):
        assert read(path).array.shape[0] in (1, 3)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch, write_dicom):
    monkeypatch.setattr(convert, "MAX_PIXELS", 30)
    for path in every_kind(tmp_path, write_dicom):
        assert "set-aside" in reason(path)
        assert "more than the" in reason(path)


def test_several_images_in_a_tiff_are_set_aside(tmp_path):
    image = Image.fromarray(GRAY)
    image.save(tmp_path / "a", format="TIFF", save_all=True, append_images=[image])
    assert "2 images in one file" in reason(tmp_path / "a")


# --- chunks ---------------------------------------------------------------------------------------

ODD_NAMES = [
    "a b.png",
    "it's.png",
    'say "hi".png',
    "100%.png",
    ".hidden.png",
    "ünï-日本.png",
    "$(x);&.png",
    "-rf.png",
]


def test_odd_names_convert_through_the_script(tmp_path, script, write_table):
    root = tmp_path / "odd 'root' 100%"
    root.mkdir()
    for number, name in enumerate(ODD_NAMES):
        save(root / name, GRAY + np.uint8(number), format="PNG")
    table = write_table(root / "labels.csv", [{"path": name} for name in ODD_NAMES])
    params = ConvertParams(dataset="odd", root=str(root), table=str(table)).model_dump_json()
    assert script("convert").main(["--params", params, "--out", str(tmp_path / "out")]) == 0
    index, read_pixels = read_converted([tmp_path / "out"])
    assert index["path"].tolist() == sorted(ODD_NAMES)
    for row in index.to_dict("records"):
        expected = GRAY + np.uint8(ODD_NAMES.index(row["path"]))
        np.testing.assert_array_equal(read_pixels(row)[0], expected)


def test_chunks_part_the_scans_and_read_as_one(tmp_path, scan_folder):
    root = scan_folder(20)
    params = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
    for chunk in range(3):
        write_chunk(ConvertParams(**params, chunk=chunk, chunks=3), tmp_path / str(chunk))
    write_chunk(ConvertParams(**params), tmp_path / "whole")
    index, read_pixels = read_converted([tmp_path / str(chunk) for chunk in (2, 0, 1)])
    whole, _ = read_converted([tmp_path / "whole"])
    assert index["folder"].nunique() == 3
    same = ["scan", "path", "pixel_sha256", "sha256", "mean"]
    assert index[same].equals(whole[same])
    for _, row in index.iterrows():
        np.testing.assert_array_equal(read_pixels(row), read(root / row["path"]).physical())
    assert (
        pixel_digest(read_pixels(next(index.itertuples(index=False)))) == index["pixel_sha256"][0]
    )


def test_a_scan_more_moves_no_other_to_another_chunk(scan_folder):
    def chunks(n: int, name: str) -> dict[str, int]:
        root = scan_folder(n, name=name)
        sources = list_scans(
            ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv"))
        )
        return {s.path: c for c in range(4) for s in in_chunk(sources, c, 4)}

    few, more = chunks(10, "few"), chunks(12, "more")
    assert len(more) == 12
    assert few.items() <= more.items()


def test_the_same_scans_give_the_same_bytes(tmp_path, scan_folder, make_converted):
    root = scan_folder(6)
    first = make_converted(root)
    before = [(first / name).read_bytes() for name in ("index.parquet", "pixels.bin")]
    assert [
        (make_converted(root) / n).read_bytes() for n in ("index.parquet", "pixels.bin")
    ] == before


def test_one_bad_file_is_listed_or_stops_the_run(tmp_path, scan_folder, make_converted):
    root = scan_folder(8, kinds=["png"])
    bad = sorted((root / "images").iterdir())[1:3]
    bad[0].write_bytes(bad[0].read_bytes()[:100])
    bad[1].write_text("not an image")
    index, read_pixels = read_converted([make_converted(root)])
    left_out = index[index["status"] != "ok"]
    assert left_out["path"].tolist() == [f"images/{path.name}" for path in bad]
    assert (left_out["reason"] != "").all()
    assert (index["status"] == "ok").sum() == 6
    with pytest.raises(ValueError, match="has no pixels"):
        read_pixels(left_out.iloc[0])
    with pytest.raises(UserError) as caught:
        make_converted(root, on_unreadable="stop")
    assert len(caught.value.problems) == 2


def test_an_interrupted_chunk_is_not_taken_for_a_whole_one(scan_folder, make_converted):
    out = make_converted(scan_folder(6))
    with open(out / "pixels.bin", "r+b") as handle:
        handle.truncate(100)
    with pytest.raises(UserError, match="cut short"):
        read_converted([out])
    (out / "index.parquet").unlink()
    with pytest.raises(UserError, match="interrupted"):
        read_converted([out])


def test_a_folder_per_class_needs_no_table(tmp_path):
    for path in ("ill/a.png", "ill/deeper/b.png", "well/a.png", ".git/x.png", "well/.DS_Store"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / path, GRAY, format="PNG")
    (tmp_path / "README.md").write_text("not a scan")
    sources = list_scans(ConvertParams(dataset="d", root=str(tmp_path)))
    assert [source.path for source in sources] == ["ill/a.png", "ill/deeper/b.png", "well/a.png"]
    fewer = list_scans(ConvertParams(dataset="d", root=str(tmp_path), exclude=["ill/deeper/*"]))
    assert [source.path for source in fewer] == ["ill/a.png", "well/a.png"]


def test_a_name_that_is_no_text_is_refused_in_words(tmp_path):
    for name in (b"ill/a.png", b"well/\xff\xfe.png"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(b"x")
    with pytest.raises(UserError, match="is not valid UTF-8; rename the file") as caught:
        list_scans(ConvertParams(dataset="d", root=str(tmp_path)))
    str(caught.value).encode()  # can be printed anywhere


def test_the_script_says_what_is_wrong_and_ends_with_2(tmp_path, script, capsys):
    params = ConvertParams(dataset="d", root=str(tmp_path / "none")).model_dump_json()
    assert script("convert").main(["--params", params, "--out", str(tmp_path / "o")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_script_runs_as_a_program(tmp_path, scan_folder):
    root = scan_folder(4)
    script = Path(__file__).parents[1] / "scripts" / "convert.py"
    params = ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv"))
    command = [sys.executable, str(script), "--params", params.model_dump_json(), "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    subprocess.run(
        [*command, "--sidecar", "side.json"],
        cwd=tmp_path,
        check=True,
        env=environment,
        capture_output=True,
    )
    assert (tmp_path / "out" / "pixels.bin").stat().st_size > 0
    assert '"scans": 4' in (tmp_path / "side.json").read_text()


# --- npz ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("compressed", [False, True])
def test_npz_scans_are_those_of_the_arrays(tmp_path, channels, compressed):
    arrays = {}
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = RNG.integers(0, 256, (n, 6, 4, *channels), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(n)[:, None] % 2
    (np.savez_compressed if compressed else np.savez)(tmp_path / "m.npz", **arrays)
    params = ConvertParams(dataset="m", npz=str(tmp_path / "m.npz"), exclude=["train/000002"])
    write_chunk(params, tmp_path / "out")
    index, read_pixels = read_converted([tmp_path / "out"])
    assert len(index) == 9
    assert set(index["format"]) == {"NPZ"}
    for row in index.to_dict("records"):
        part, number = row["path"].split("/")
        expected = arrays[f"{part}_images"][int(number)]
        np.testing.assert_array_equal(
            read_pixels(row), np.moveaxis(expected, -1, 0) if channels else expected[None]
        )


def test_npz_in_fortran_order_and_read_backwards(tmp_path):
    images = np.asfortranarray(RNG.integers(0, 256, (4, 6, 5), dtype=np.uint8))
    np.savez(tmp_path / "m.npz", train_images=images)
    reader = NpzReader(tmp_path / "m.npz")
    for number in (3, 1):
        np.testing.assert_array_equal(reader.read("train", number).array[0], images[number])
    reader.close()


def npz_problem(path: Path, **arrays) -> str:
    np.savez(path, **arrays)
    with pytest.raises(UserError) as caught:
        list_scans(ConvertParams(dataset="m", npz=str(path)))
    return str(caught.value)


def test_npz_that_cannot_be_used_is_refused_in_words(tmp_path):
    path = tmp_path / "m.npz"
    assert "3D is not read here" in npz_problem(path, train_images=np.zeros((2, 8, 8, 8), np.uint8))
    assert "is missing; the file has x" in npz_problem(path, x=np.zeros(3))
    assert "pickle" in npz_problem(path, train_images=np.array([{}, []], dtype=object))
    images = np.zeros((2, 8, 8), np.uint8)
    several = npz_problem(path, train_images=images, train_labels=np.zeros((2, 14), int))
    assert "14 labels per scan" in several
    assert "does not fit 2 images" in npz_problem(
        path, train_images=images, train_labels=np.zeros(3, int)
    )
    path.write_bytes(b"PK not really")
    with pytest.raises(UserError, match=r"not an \.npz archive"):
        list_scans(ConvertParams(dataset="m", npz=str(path)))


def test_a_damaged_npz_is_no_crash(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("train_images.npy", buffer.getvalue()[:1000])
    write_chunk(ConvertParams(dataset="m", npz=str(tmp_path / "m.npz")), tmp_path / "out")
    index, _ = read_converted([tmp_path / "out"])
    bad = index[index["status"] != "ok"]
    assert 0 < len(bad) < 40
    assert bad["reason"].str.contains("damaged").all()


# --- real data ------------------------------------------------------------------------------------


def test_all_of_covid_ct_converts_and_lying_names_show(tmp_path, shared_data):
    import pandas as pd

    root = shared_data("covid_ct")
    table = pd.read_csv(root / "labels.csv").set_index("path")
    write_chunk(
        ConvertParams(dataset="covid", root=str(root), table=str(root / "labels.csv")),
        tmp_path / "out",
    )
    index = read_converted([tmp_path / "out"])[0].set_index("path")
    assert len(index) == 746
    assert (index["status"] == "ok").all()
    said = table.loc[index.index]
    assert (index["format"] == said["file_format"]).all()
    assert (index["mode"] == said["mode"]).all()
    assert [list(s) for s in index["shape"]] == said[["height", "width"]].to_numpy().tolist()
    assert ((index["format"] == "JPEG") & index.index.str.endswith(".png")).sum() == 34


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
        np.testing.assert_array_equal(read(root / name).physical()[0], gdcm(root / name))


def test_a_nifti_slice_of_a_real_volume(tmp_path, shared_data):
    import nibabel as nib

    path = next((shared_data("hippocampus_nifti") / "imagesTr").glob("*.nii.gz"))
    assert "a volume" in reason(path)
    volume = nib.load(path)
    middle = volume.slicer[:, :, 10:11]
    nib.save(middle, tmp_path / "slice.nii.gz")
    expected = middle.get_fdata()[:, :, 0].T
    np.testing.assert_allclose(read(tmp_path / "slice.nii.gz").physical()[0], expected, rtol=1e-6)
