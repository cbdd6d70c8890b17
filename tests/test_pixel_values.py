"""Decoded pixels against other ways to them, written here: colour, palettes, odd bit depths, packed bits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fewscans.convert import read

RNG = np.random.default_rng(0)


@pytest.fixture
def files(shared_data) -> Path:
    return shared_data("dicom_2d_quirks") / "files"


@pytest.fixture
def write(tmp_path, write_dicom):
    """A file whose pixel data are exactly `data`."""

    def make(
        data: bytes, shape: tuple[int, ...], dtype=np.uint8, syntax=ExplicitVRLittleEndian, **tags
    ) -> Path:
        path = write_dicom(tmp_path / "a", np.zeros(shape, dtype), syntax=syntax, **tags)
        dataset = pydicom.dcmread(path)
        vr = "OW" if np.dtype(dtype).itemsize > 1 else "OB"
        dataset["PixelData"] = DataElement(0x7FE00010, vr, data + b"\0" * (len(data) % 2))
        dataset.save_as(path)
        return path

    return make


# --- palettes -------------------------------------------------------------------------------------


def looked_up(dataset: pydicom.Dataset, indices: np.ndarray) -> np.ndarray:
    """[3, H, W] of 8 bits by the tables of PS3.3 C.7.6.3.1.5: entries, first index, bits of an entry."""
    planes = []
    for colour in ("Red", "Green", "Blue"):
        n, first, bits = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = dataset[f"{colour}PaletteColorLookupTableData"].value
        entries = np.frombuffer(data, "<u2" if len(data) >= 2 * (n or 65536) else np.uint8)
        place = np.clip(indices.astype(int) - first, 0, (n or 65536) - 1)
        planes.append(entries[place].astype(int) >> (8 if bits == 16 else 0))
    return np.stack(planes)


@pytest.mark.parametrize("name", ["examples_palette.dcm", "OBXXXX1A_rle.dcm"])
def test_a_real_palette_is_looked_up_in_its_tables(files, name):
    dataset = pydicom.dcmread(files / name)
    expected = looked_up(dataset, dataset.pixel_array)
    scan = read(files / name)
    np.testing.assert_array_equal(scan.array, expected)
    assert scan.array.dtype == np.uint8


def test_a_palette_that_begins_later_ends_earlier_and_has_sixteen_bits(write):
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6)
    tables = RNG.integers(0, 65536, (3, 10), dtype=np.uint16)
    tags = {"PhotometricInterpretation": "PALETTE COLOR", "Modality": "US"}
    for colour, entries in zip(("Red", "Green", "Blue"), tables, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [10, 5, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    scan = read(write(indices.tobytes(), indices.shape, **tags))
    np.testing.assert_array_equal(scan.array, tables[:, np.clip(indices.astype(int) - 5, 0, 9)])


# --- colour ---------------------------------------------------------------------------------------


def to_rgb(ybr: np.ndarray) -> np.ndarray:
    """[..., 3] YBR_FULL -> RGB, not rounded: inverse of the matrix in PS3.3 C.7.6.3.1.2."""
    forward = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip((ybr.astype(float) - [0, 128, 128]) @ np.linalg.inv(forward).T, 0, 255)


def close(scan, expected: np.ndarray) -> None:
    np.testing.assert_allclose(scan.array.astype(float), np.moveaxis(expected, -1, 0), atol=1.01)


YBR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_ybr_full_by_pixel_and_by_plane(write):
    tags = {"PhotometricInterpretation": "YBR_FULL", "Modality": "US"}
    close(read(write(YBR.tobytes(), YBR.shape, **tags)), to_rgb(YBR))
    planes = np.moveaxis(YBR, -1, 0).tobytes()
    close(read(write(planes, YBR.shape, PlanarConfiguration=1, **tags)), to_rgb(YBR))


def test_rgb_by_plane_is_exact(write):
    planes = np.moveaxis(YBR, -1, 0)
    scan = read(write(planes.tobytes(), YBR.shape, PlanarConfiguration=1, Modality="US"))
    np.testing.assert_array_equal(scan.array, planes)


def test_ybr_full_422_has_two_lights_for_one_colour(write):
    """Y1 Y2 Cb Cr for two pixels beside each other (PS3.3 C.7.6.3.1.2)."""
    pairs = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    light = pairs[..., :2].reshape(6, 8)
    colour = pairs[..., 2:].repeat(2, axis=1)
    tags = {"PhotometricInterpretation": "YBR_FULL_422", "Modality": "US"}
    scan = read(write(pairs.tobytes(), (6, 8, 3), **tags))
    close(scan, to_rgb(np.concatenate([light[..., None], colour], axis=-1)))


def test_real_colours(files):
    """By planes and by pixels they are the same; luma and colour differences are those of PS3.3."""
    np.testing.assert_array_equal(
        read(files / "color-pl.dcm").array, read(files / "color-px.dcm").array
    )
    dataset = pydicom.dcmread(files / "color-pl.dcm")
    shape = (3, dataset.Rows, dataset.Columns)
    stored = np.frombuffer(dataset.PixelData, np.uint8)[: np.prod(shape)].reshape(shape)
    np.testing.assert_array_equal(read(files / "color-pl.dcm").array, stored)
    dataset = pydicom.dcmread(files / "SC_ybr_full_uncompressed.dcm")
    shape = (dataset.Rows, dataset.Columns, 3)
    stored = np.frombuffer(dataset.PixelData, np.uint8)[: np.prod(shape)].reshape(shape)
    close(read(files / "SC_ybr_full_uncompressed.dcm"), to_rgb(stored))
    dataset = pydicom.dcmread(files / "SC_ybr_full_422_uncompressed.dcm")
    pairs = np.frombuffer(dataset.PixelData, np.uint8)
    pairs = pairs[: 2 * dataset.Rows * dataset.Columns].reshape(dataset.Rows, -1, 4)
    light = pairs[..., :2].reshape(dataset.Rows, dataset.Columns, 1)
    ybr = np.concatenate([light, pairs[..., 2:].repeat(2, axis=1)], axis=-1)
    close(read(files / "SC_ybr_full_422_uncompressed.dcm"), to_rgb(ybr))


# --- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "liver.dcm"])
def test_packed_bits_begin_with_the_lowest(files, name):
    """PS3.5 8.1.1 and D: the first pixel is the least significant bit."""
    dataset = pydicom.dcmread(files / name)
    frames = int(dataset.get("NumberOfFrames", 1))
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    shape = (frames, dataset.Rows, dataset.Columns)
    expected = bits[: np.prod(shape)].reshape(shape)
    for frame in range(frames):
        scan = read(files / name, frame=frame if frames > 1 else None)
        np.testing.assert_array_equal(scan.array[0], expected[frame])
    assert 0 < expected.mean() < 1


def test_frames_of_packed_bits_need_not_begin_with_a_byte(write):
    pixels = RNG.integers(0, 2, (3, 5, 7), dtype=np.uint8)
    tags = {
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "NumberOfFrames": 3,
        "Modality": "SEG",
    }
    path = write(np.packbits(pixels, bitorder="little").tobytes(), (5, 7), **tags)
    for frame in range(3):
        np.testing.assert_array_equal(read(path, frame=frame).array[0], pixels[frame])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("bits", "signed"), list(itertools.product([7, 10, 12, 15], [False, True]))
)
def test_bits_above_those_stored_are_no_part_of_the_number(write, bits, signed, syntax):
    """Overlays may lie in them (PS3.5 8.1.1, retired but found); the sign is in the highest of its own bits."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = RNG.integers(low, high + 1, (5, 6))
    values.flat[:2] = low, high
    garbage = RNG.integers(0, 2 ** (16 - bits), values.shape) << bits
    stored = ((values & (2**bits - 1)) | garbage).astype("<u2")
    tags = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed)}
    scan = read(write(stored.tobytes(), (5, 6), np.uint16, syntax, **tags))
    np.testing.assert_array_equal(scan.array[0], values)
    assert scan.meta.bits == bits
    assert scan.array.dtype == (np.int16 if signed else np.uint16)


def test_seven_of_eight_bits(write):
    values = RNG.integers(0, 128, (5, 6), dtype=np.uint8)
    stored = values | (RNG.integers(0, 2, values.shape, dtype=np.uint8) << 7)
    scan = read(write(stored.tobytes(), (5, 6), BitsStored=7, HighBit=6))
    np.testing.assert_array_equal(scan.array[0], values)
