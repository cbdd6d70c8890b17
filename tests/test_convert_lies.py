"""Images whose header says another size, depth or packing than their data have are refused; odd ones are read."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from convert_factory import raw_png, reason
from lies import LIES, bmp_field, jpeg_frame, lie, png_header, tiff_value
from PIL import Image

from fewscans.convert import read

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (24, 20), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 20), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)
SMOOTH = (128 + 60 * np.sin(np.arange(70)[:, None] / 9) * np.cos(np.arange(90) / 7)).astype(
    np.uint8
)
WRONG = "is wrong|cut short|damaged|not read|decoder error"


def packed(kind: str, pixels: np.ndarray | Image.Image, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    made = io.BytesIO()
    image.save(made, format=kind, **options)
    return made.getvalue()


def told(tmp_path, data: bytes) -> str:
    (tmp_path / "a").write_bytes(data)
    return reason(tmp_path / "a")


def pixels(tmp_path, data: bytes) -> np.ndarray:
    (tmp_path / "a").write_bytes(data)
    return read(tmp_path / "a").array


# --- PNG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"height": 23}, {"height": 1}, {"height": 25}, {"width": 19}, {"width": 21}, {"bits": 4}, {"bits": 16},
               {"colour": 4}, {"interlaced": 1}], ids=str)  # fmt: skip
def test_a_png_with_another_header_than_rows_is_refused(tmp_path, fields):
    assert "one of them is wrong" in told(tmp_path, png_header(packed("PNG", GRAY), **fields))


def test_a_png_is_read_to_the_end_of_its_checksums(tmp_path):
    good = packed("PNG", GRAY)
    at = good.index(b"IDAT")
    length = int.from_bytes(good[at - 4 : at], "big")
    for place in (at + 40, at + 4 + length + 1, at + 4 + length - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        assert "the checksum of a part (b'IDAT')" in told(tmp_path, bytes(bad))
    rows = zlib.decompress(good[at + 4 : at + 4 + length])
    for body, said in (
        (zlib.compress(rows)[:-4], "its packed rows break off"),
        (zlib.compress(rows)[:-4] + b"0000", "cannot be unpacked"),
        (zlib.compress(rows + b"\0"), "are more than the 504 bytes"),
        (zlib.compress(rows[:-1]), "are 503 bytes, and 504"),
    ):
        chunk = b"IDAT" + body
        whole = good[: at - 4] + struct.pack(">I", len(body)) + chunk
        whole += zlib.crc32(chunk).to_bytes(4, "big") + good[-12:]
        assert said in told(tmp_path, whole)
    assert "it has no end" in told(tmp_path, good[:-12])
    assert "cut short" in told(tmp_path, good[:-5])


def test_a_png_whose_pixels_are_beyond_its_palette_is_refused(tmp_path):
    image = Image.fromarray(GRAY % 4)
    image.putpalette(bytes(range(30, 60)))
    good = packed("PNG", image)
    assert pixels(tmp_path, good).shape == (3, 24, 20)
    at = good.index(b"PLTE")
    body = b"PLTE" + good[at + 4 : at + 4 + 6]
    end = at + 8 + int.from_bytes(good[at - 4 : at], "big")
    short = good[: at - 4] + struct.pack(">I", 6) + body + zlib.crc32(body).to_bytes(4, "big")
    assert "colour 3 of a palette of 2" in told(tmp_path, short + good[end:])


def test_odd_pngs_are_read(tmp_path):
    np.testing.assert_array_equal(pixels(tmp_path, packed("PNG", GRAY) + b"behind")[0], GRAY)
    image = Image.fromarray(GRAY > 99)
    np.testing.assert_array_equal(pixels(tmp_path, packed("PNG", image))[0], (GRAY > 99) * 255)
    good = packed("PNG", GRAY)
    at = good.index(b"IDAT")
    body = good[at + 4 : at + 4 + int.from_bytes(good[at - 4 : at], "big")]
    parts = b""
    for piece in (body[:7], b"", body[7:]):
        chunk = b"IDAT" + piece
        parts += struct.pack(">I", len(piece)) + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    np.testing.assert_array_equal(pixels(tmp_path, good[: at - 4] + parts + good[-12:])[0], GRAY)


@pytest.mark.parametrize("shape", [(24, 20), (1, 1), (3, 1), (5, 9)])
def test_interlaced_pngs_are_read(tmp_path, shape):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    made = raw_png(array[..., None], 0, interlaced=True)
    np.testing.assert_array_equal(pixels(tmp_path, made)[0], array)


# --- JPEG -----------------------------------------------------------------------------------------

JPEGS = {
    "gray": (GRAY, {}),
    "smooth": (SMOOTH, {"quality": 30}),
    "colour": (COLOUR, {}),
    "4:4:4": (COLOUR, {"subsampling": 0}),
    "progressive": (COLOUR, {"progressive": True}),
    "restarts": (GRAY, {"restart_marker_blocks": 2}),
    "restarts, colour": (np.tile(COLOUR, (3, 3, 1)), {"restart_marker_rows": 1}),
    "cmyk": (np.tile(COLOUR, (1, 1, 2))[..., :4], {}),
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_with_more_or_fewer_blocks_than_its_header_says_is_refused(tmp_path, name):
    array, options = JPEGS[name]
    image = Image.fromarray(array, "CMYK" if array.shape[2:] == (4,) else None)
    good = packed("JPEG", image, **options)
    height, width = array.shape[:2]
    assert pixels(tmp_path, good).shape[1:] == (height, width)
    for fields in (
        {"height": height - 16},
        {"height": 1},
        {"width": width - 16},
        {"width": 1},
        {"height": height + 16},
        {"height": 1000},
        {"width": width + 16},
        {"width": 1000},
    ):
        assert "one of them is wrong" in told(tmp_path, jpeg_frame(good, **fields)), fields


def test_a_jpeg_without_an_end_is_refused_and_one_with_something_behind_it_read(tmp_path):
    good = packed("JPEG", SMOOTH)
    assert "it has no end" in told(tmp_path, good[:-2])
    expected = np.asarray(Image.open(io.BytesIO(good)))
    coded, end = good[:-2], good[-2:]
    for odd in (good + b"behind\xff\xd8\xff", coded + b"\0\0\0" + end, coded + b"\xff" + end):
        np.testing.assert_array_equal(pixels(tmp_path, odd)[0], expected)


def test_a_jpeg_with_a_second_picture_is_its_first(tmp_path):
    image, other = (Image.fromarray(array) for array in (SMOOTH, GRAY))
    found = pixels(tmp_path, packed("MPO", image, save_all=True, append_images=[other]))
    assert found.shape == (1, *SMOOTH.shape)


@pytest.mark.parametrize("gray", [127, 128])
def test_a_jpeg_that_ends_in_the_gray_of_nothing_is_read(tmp_path, gray):
    flat = GRAY.copy()
    flat[8:] = gray
    for array in (flat, np.full_like(GRAY, gray)):
        for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
            good = packed("JPEG", array, quality=100, **options)
            assert pixels(tmp_path, good).shape == (1, 24, 20)
            if array is flat:  # of one gray nothing can be told
                assert "is wrong" in told(tmp_path, jpeg_frame(good, height=48))


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (8, 8), (9, 17), (16, 16), (17, 33)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpegs_of_any_size_are_read(tmp_path, shape, progressive, subsampling):
    array = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    options = {"progressive": progressive, "subsampling": subsampling}
    assert pixels(tmp_path, packed("JPEG", array, **options)).shape == (3, *shape)
    assert pixels(tmp_path, packed("JPEG", array[..., 0], progressive=progressive)).shape == (1, *shape)  # fmt: skip


# --- TIFF -----------------------------------------------------------------------------------------

TIFFS = {
    "plain": (GRAY, {}),
    "16 bit": (DEEP, {}),
    "colour": (COLOUR, {}),
    "lzw": (COLOUR, {"compression": "tiff_lzw"}),
    "deflate": (DEEP, {"compression": "tiff_adobe_deflate"}),
    "old deflate": (GRAY, {"compression": "tiff_deflate"}),
    "packbits": (GRAY, {"compression": "packbits"}),
    "strips": (GRAY, {"compression": "tiff_lzw", "tiffinfo": {278: 5}}),
}


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_with_other_strips_than_its_header_says_is_refused(tmp_path, name):
    array, options = TIFFS[name]
    good = packed("TIFF", array, **options)
    assert pixels(tmp_path, good).shape[1:] == (24, 20)
    for tag, values in ((257, (23, 1, 25, 900)), (256, (19, 1, 21, 500))):
        for value in values:
            assert re.search(WRONG, told(tmp_path, tiff_value(good, tag, value))), (tag, value)


@pytest.mark.parametrize(
    ("tag", "value"),
    [(258, 4), (258, 16), (259, 5), (259, 8), (259, 32773), (278, 3), (273, 3), (273, 10**6), (279, 50)],
)  # fmt: skip
def test_a_tiff_with_another_depth_packing_or_place_is_refused(tmp_path, tag, value):
    assert re.search(WRONG, told(tmp_path, tiff_value(packed("TIFF", GRAY), tag, value)))


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True},
        {"rowsperstrip": 5},
        {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
        {"rowsperstrip": 1},
        {"byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("array", [GRAY, DEEP], ids=["8", "16"])
def test_odd_tiffs_are_read_and_their_lies_refused(tmp_path, array, options):
    tifffile = pytest.importorskip("tifffile", reason="writes tiles, BigTIFF and strips")
    tifffile.imwrite(tmp_path / "b", array, **options)
    good = (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(pixels(tmp_path, good)[0], array)
    if "bigtiff" not in options and "byteorder" not in options:
        assert "is wrong" in told(tmp_path, tiff_value(good, 257, 10))
        assert "is wrong" in told(tmp_path, tiff_value(good, 256, 10))


def test_tiffs_of_one_bit_a_palette_planes_and_several_pages(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes planes")
    ones = Image.fromarray(GRAY > 99)
    for options in ({}, {"compression": "group4"}, {"compression": "tiff_lzw"}):
        found = pixels(tmp_path, packed("TIFF", ones, **options))
        np.testing.assert_array_equal(found[0], (GRAY > 99) * 255)
    image = Image.fromarray(GRAY)
    image.putpalette(bytes(range(256)) * 3)
    assert pixels(tmp_path, packed("TIFF", image)).shape[0] == 3
    planes = np.moveaxis(COLOUR, -1, 0)
    tifffile.imwrite(tmp_path / "b", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pixels(tmp_path, (tmp_path / "b").read_bytes()), planes)
    for compression in ("jpeg", "tiff_lzw", None):
        assert pixels(tmp_path, packed("TIFF", COLOUR, compression=compression)).shape[0] == 3
    pages = packed("TIFF", GRAY, save_all=True, append_images=[Image.fromarray(GRAY)])
    assert "2 images in one file" in told(tmp_path, pages)


# --- BMP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [GRAY, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize(
    "fields", [{"height": 23}, {"height": 1}, {"height": 25}, {"height": -23}, {"width": 16}, {"width": 25},
               {"bits": 1},
               {"bits": 4}, {"bits": 32}, {"begins": 60}, {"begins": 2000}, {"begins": 53}], ids=str)  # fmt: skip
def test_a_bmp_whose_rows_do_not_fill_it_is_refused(tmp_path, array, fields):
    assert re.search(WRONG, told(tmp_path, bmp_field(packed("BMP", array), **fields)))


def test_odd_bmps_are_read(tmp_path):
    good = packed("BMP", COLOUR)
    expected = np.moveaxis(COLOUR, -1, 0)
    for odd in (good + b"behind it", good + b"\0\0"):
        np.testing.assert_array_equal(pixels(tmp_path, odd), expected)
    for said in (0, len(good) - 54, 10**9):  # writers that count wrongly
        counted = good[:2] + said.to_bytes(4, "little") + good[6:]
        np.testing.assert_array_equal(pixels(tmp_path, counted), expected)
    padded = bytearray(good + b"\0\0")
    padded[2:6] = len(padded).to_bytes(4, "little")  # as Photoshop writes them
    np.testing.assert_array_equal(pixels(tmp_path, bytes(padded)), expected)
    longer = good[:2] + (len(good) + 60).to_bytes(4, "little") + good[6:] + bytes(60)
    assert "is wrong" in told(tmp_path, longer)
    down = bmp_field(good, height=-24)
    np.testing.assert_array_equal(pixels(tmp_path, down), expected[:, ::-1])
    ones = Image.fromarray(GRAY > 99)
    np.testing.assert_array_equal(pixels(tmp_path, packed("BMP", ones))[0], (GRAY > 99) * 255)
    image = Image.fromarray(GRAY % 4)
    image.putpalette([9, 8, 7, 90, 80, 70, 5, 5, 250, 1, 2, 3])
    assert pixels(tmp_path, packed("BMP", image)).shape[0] == 3


def test_a_packed_bmp_has_as_many_rows_as_its_header_says(tmp_path):
    """Runs of RLE8 (BITMAPINFOHEADER, compression 1); only Pillow's reader knows them here."""
    palette = bytes(v for n in range(256) for v in (n, n, n, 0))
    for end in (b"\0\1", b"\0\0\0\1", b""):
        rows = b"\0\0".join(bytes([20, row]) for row in range(24)) + end
        head = struct.pack("<2sIHHI", b"BM", 1078 + len(rows), 0, 0, 1078)
        head += struct.pack("<IiiHHIIiiII", 40, 20, 24, 1, 8, 1, len(rows), 0, 0, 256, 0)
        good = head + palette + rows
        assert pixels(tmp_path, good)[0, :, 0].tolist() == list(range(23, -1, -1))
        assert "go on behind" in told(tmp_path, bmp_field(good, height=22))
        assert "not enough image data" in told(tmp_path, bmp_field(good, height=30))


# --- lies that are drawn --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "array"), [(kind, array) for kind in LIES for array in (GRAY, COLOUR)]
)
def test_lies_that_are_drawn_are_seen(tmp_path, kind, array):
    good = packed(kind.upper(), array)
    rng = np.random.default_rng(7)
    for _ in range(20):
        bad = lie(rng, kind, good)
        assert bad != good
        told(tmp_path, bad)
