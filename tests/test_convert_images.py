"""Reading PNG, JPEG, TIFF and BMP: every pixel as it was."""

from __future__ import annotations

import numpy as np
import pytest
from convert_factory import COLOUR, DEEP, GRAY, RNG, SMALL, raw_png, reason, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fewscans.convert import read
from fewscans.convert.fingerprint import pixel_digest


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


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("alpha", [0, 300, 65535])
def test_16_bit_gray_with_alpha_is_not_cut_down_to_8(tmp_path, alpha, interlaced):
    pixels = np.stack([DEEP, np.full_like(DEEP, alpha)], axis=-1)
    (tmp_path / "a").write_bytes(raw_png(pixels, 4, interlaced))
    scan = read(tmp_path / "a")
    assert scan.array.dtype == np.uint16
    np.testing.assert_array_equal(scan.array, DEEP[None])
    assert (scan.meta.mode, scan.meta.bits, scan.meta.notes) == ("LA;16", 16, ())


def test_other_alpha_of_16_bit_gray_is_put_on_black(tmp_path):
    alpha = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    (tmp_path / "a").write_bytes(raw_png(np.stack([DEEP, alpha], axis=-1), 4))
    scan = read(tmp_path / "a")
    np.testing.assert_array_equal(scan.array[0], np.floor(DEEP.astype(float) * alpha / 65535 + 0.5))
    assert scan.meta.notes == ("alpha was put on black",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bit_with_colour_or_alpha_is_turned_as_8_bit_is(tmp_path, orientation, colour):
    samples = {2: 3, 4: 2, 6: 4}[colour]
    pixels = RNG.integers(0, 256, (5, 7, samples), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    chunk = (b"eXIf", exif.tobytes()[6:])
    for name, array in (("a", pixels), ("b", pixels.astype(np.uint16) * 257)):
        if samples in (2, 4):
            array[..., -1] = 7
        (tmp_path / name).write_bytes(raw_png(array, colour, False, chunk))
    few, deep = (read(tmp_path / name).array for name in "ab")
    np.testing.assert_array_equal(deep, few.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    "options", [{"planarconfig": "separate"}, {"tile": (16, 16)}, {"extratags": [(274, "H", 1, 6, True)]}], ids=str
)  # fmt: skip
def test_16_bit_colour_that_would_be_cut_down_to_8_is_refused(tmp_path, options):
    tifffile = pytest.importorskip("tifffile", reason="writes tiles and planes")
    array = RNG.integers(0, 65536, (16, 20, 3), dtype=np.uint16)
    if "planarconfig" in options:
        array = np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "a", array, photometric="rgb", **options)
    assert "16-bit colour in tiles, planes or turned is not read" in reason(tmp_path / "a")


def test_the_fourth_sample_of_16_bit_colour_is_what_it_is_said_to_be(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes the tag ExtraSamples")
    array = RNG.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    colour = np.moveaxis(array[..., :3], -1, 0)
    for kind, expected, notes in (
        ("unspecified", colour, ()),
        ("assocalpha", colour, ("alpha was put on black",)),
        ("unassalpha", np.floor(colour.astype(float) * array[..., 3] / 65535 + 0.5), ("alpha was put on black",)),
    ):  # fmt: skip
        tifffile.imwrite(tmp_path / "a", array, photometric="rgb", extrasamples=[kind])
        scan = read(tmp_path / "a")
        np.testing.assert_array_equal(scan.array, expected)
        assert scan.meta.notes == notes


def test_tiff_of_16_bit_gray_with_alpha_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes the tag ExtraSamples")
    pixels = np.stack([DEEP, DEEP], axis=-1)
    options = {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a", pixels, photometric="minisblack", **options)
    assert "TIFF of a kind that is not read" in reason(tmp_path / "a")


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
