"""Work that is done once, and memory that does not grow: no number that comes out may change by it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from series_factory import BODY, Series

from fewscans import geometry
from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert import Unreadable, headers, to_physical
from fewscans.convert.chunks import read_converted, read_pixels, read_values, write_chunk
from fewscans.convert.decoding import decode
from fewscans.normalise import make_store, order
from fewscans.normalise.foreground import foreground_mask
from fewscans.normalise.order import percentiles

# --- percentiles ----------------------------------------------------------------------------------

SHAPES = st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9))
NUMBERS = st.one_of(
    arrays(np.float32, SHAPES, elements=st.floats(-1000, 1000, width=32)),
    arrays(np.int16, SHAPES),
    arrays(np.uint8, st.integers(1, 400), elements=st.sampled_from([0, 1, 255])),
)  # fmt: skip


@settings(deadline=None)
@given(NUMBERS, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_are_those_of_numpy_to_the_last_digit(image, low, high):
    expected = np.percentile(image.astype(np.float64), (low, high))
    assert percentiles(image, (low, high)) == tuple(expected)


@pytest.mark.parametrize("kind", ["noise", "empty ground", "sorted", "stripes", "one value"])
@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_percentiles_of_many_values_whatever_the_sample_says_of_them(kind, dtype, monkeypatch):
    noise = np.abs(np.random.default_rng(0).normal(size=(1, 150, 128)) * 60).clip(0, 255)
    image = {
        "noise": noise,
        "empty ground": np.where(noise > 100, noise, 0),
        "sorted": np.sort(noise, axis=None).reshape(noise.shape),
        # Every 64th value, which a sample of that step would take for all.
        "stripes": np.where(np.arange(128) % 64 == 0, noise, 7),
        "one value": np.full_like(noise, 9),
    }[kind].astype(dtype)
    ranks = (0.0, 0.5, 37.3, 50.0, 99.5, 100.0)
    expected = tuple(np.percentile(image.astype(np.float64), ranks))
    monkeypatch.setattr(order, "_BLOCK", 1000)
    assert percentiles(image, ranks) == expected
    monkeypatch.setattr(order, "_AROUND", 0.1)  # the place is often not between the two values
    monkeypatch.setattr(order, "_LARGE", 50)
    assert percentiles(image, ranks) == expected


# --- resampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
@pytest.mark.parametrize("pitch", [None, (0.7, 1.0, 1.6)])
def test_resizing_by_parts_and_of_whole_numbers_gives_the_same_bytes(dtype, pitch, monkeypatch):
    image = np.random.default_rng(0).integers(0, 200, (2, 13, 11, 17)).astype(dtype)
    expected = geometry.resize(image.astype(np.float64), (7, 11, 9), pitch)
    monkeypatch.setattr(geometry, "_BLOCK", 40)
    monkeypatch.setattr(geometry, "_PART", 300)
    found = geometry.resize(image, (7, 11, 9), pitch)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_a_scan_in_the_middle_of_a_store_is_resized_as_if_nothing_were_cut_off_first():
    image = np.random.default_rng(1).normal(size=(1, 40, 31))
    found = geometry.resize(image, (8, 8), (1.5, 0.8))
    rows, columns = (geometry.resampling_weights(n, 8, p) for n, p in ((40, 1.5), (31, 0.8)))
    np.testing.assert_array_equal(found[0], (columns @ np.ascontiguousarray((rows @ image[0]).T)).T)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
@pytest.mark.parametrize(
    ("scale", "intercept"),
    [(1.0, 0.0), (1.0, -1024.0), (1.0, 0.5), (2.5, -3.0), (-1.0, 65535.0)],
)
def test_values_are_pixels_and_no_larger_than_they_were_stored(tmp_path, dtype, scale, intercept):
    stored = np.array([[[0, 1, 255, 100], [7, 7, 90, 3]]], dtype)
    (tmp_path / "pixels.bin").write_bytes(b"head" + stored.tobytes())
    row = {
        "status": "ok", "channels": 1, "shape": [2, 4], "dtype": dtype, "offset": 4, "folder": str(tmp_path),
        "scale": scale, "intercept": intercept,
    }  # fmt: skip
    found = read_values(row)
    np.testing.assert_array_equal(found.astype(np.float32), read_pixels(row))
    exact = (stored.astype(np.float64) * scale + intercept).astype(np.float32)
    np.testing.assert_array_equal(read_pixels(row), exact)
    np.testing.assert_array_equal(to_physical(stored, scale, intercept), exact)
    if scale == 1 and intercept in (0, -1024) and dtype in ("int16", "uint16"):
        assert found.itemsize == 2


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (-32768, 32767), (0, 33000)])
@pytest.mark.parametrize("intercept", [-1024.0, 1024.0, -32768.0, 40000.0])
def test_values_that_16_bits_do_not_hold_are_not_wrapped_round(tmp_path, low, high, intercept):
    dtype = "int16" if low < 0 else "uint16"
    np.array([[[low, high, 0, 5]]], dtype).tofile(tmp_path / "pixels.bin")
    row = {
        "status": "ok", "channels": 1, "shape": [1, 4], "dtype": dtype, "offset": 0, "folder": str(tmp_path),
        "scale": 1.0, "intercept": intercept,
    }  # fmt: skip
    expected = np.array([low, high, 0, 5], np.float32) + np.float32(intercept)
    np.testing.assert_array_equal(read_values(row)[0, 0].astype(np.float32), expected)


# --- headers --------------------------------------------------------------------------------------


def elements(dataset: pydicom.Dataset) -> dict[int, object]:
    return {int(one.tag): (one.VR, one.value) for one in dataset}


def assert_read_alike(path: Path) -> None:
    """What `headers` says of a file, its pixels too, is what pydicom reads of it at once."""
    header, expected = headers.read_header(path), pydicom.dcmread(path, force=True)
    names = [one.keyword for one in expected if one.keyword and one.tag < 0x7FE00008]
    for _ in range(2):  # converted, and found again
        assert [header.get(name) for name in names] == [expected.get(name) for name in names]
    assert all(name in header for name in names)
    assert elements(header.file_meta) == elements(expected.file_meta)
    assert header.dataset.original_encoding == expected.original_encoding
    kinds = [name for name in ("PixelData", "FloatPixelData") if name in expected]
    assert header.has_pixels == bool(kinds)
    for name in kinds:
        found = headers.read_pixels(path, header)
        assert (found.keyword, found.data) == (name, expected[name].value)
        assert found.vr == expected[name].VR


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_a_header_that_is_known_and_the_rest_of_a_file_are_the_file(tmp_path, write_dicom, syntax):
    made = pydicom.dcmread(write_dicom(tmp_path / "a", BODY[0]))
    stored = BODY[0].astype(">i2" if syntax == ExplicitVRBigEndian else "<i2")
    made.PixelData, made.file_meta.TransferSyntaxUID = stored.tobytes(), syntax
    made.add_new(0xFFFCFFFC, "OB", b"\0" * 8)  # data set trailing padding, behind the pixels
    little = syntax != ExplicitVRBigEndian
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "b", made, implicit_vr=implicit, little_endian=little, force_encoding=True)  # fmt: skip
    assert_read_alike(tmp_path / "b")
    found, rescaled, _, notes = decode(tmp_path / "b", *_parts(tmp_path / "b"))
    np.testing.assert_array_equal(found[0, 0], BODY[0])
    assert not rescaled
    assert notes == ()


def _parts(path: Path) -> tuple[headers.Header, headers.Pixels]:
    header = headers.read_header(path)
    return header, headers.read_pixels(path, header)


def test_equal_bytes_mean_what_the_file_around_them_says(tmp_path, write_dicom):
    """Letters, sign and encoding are the file's own."""
    body = BODY[0].astype("<i2")
    found = []
    for name, letters, signed, implicit in (
        ("a", "ISO_IR 100", 0, False), ("b", "ISO_IR 144", 0, False), ("c", "ISO_IR 100", 1, True),
        ("d", "ISO_IR 100", 0, True),
    ):  # fmt: skip
        made = pydicom.dcmread(write_dicom(tmp_path / name, body))
        made.SpecificCharacterSet, made.PixelRepresentation = letters, signed
        made.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
        made.add_new("SmallestImagePixelValue", "SS" if signed else "US", -2 if signed else 65534)
        made.add_new("SeriesDescription", "LO", "\xe4" if letters.endswith("100") else "\u0444")
        little = {"little_endian": True, "force_encoding": True}
        pydicom.dcmwrite(tmp_path / name, made, implicit_vr=implicit, **little)
        header = headers.read_header(tmp_path / name)
        found.append((header.get("SmallestImagePixelValue"), header.get("SeriesDescription")))
        assert_read_alike(tmp_path / name)
    assert found == [(65534, "\xe4"), (65534, "\u0444"), (-2, "\xe4"), (65534, "\xe4")]


def test_values_that_are_kept_are_not_all_that_ever_were(tmp_path, write_dicom, monkeypatch):
    monkeypatch.setattr(headers, "_MOST_VALUES", 3)
    monkeypatch.setattr(headers, "_VALUES", {})
    assert_read_alike(write_dicom(tmp_path / "a", BODY[0]))
    assert 0 < len(headers._VALUES) <= 3


def test_known_headers_of_real_files(shared_data):
    folder = shared_data("dicom_series_quirks")
    n = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        try:
            headers.read_header(path)
        except (Unreadable, OSError):
            continue
        assert_read_alike(path)
        n += 1
    assert n > 100


def test_the_header_of_a_slice_is_parsed_once_and_again_when_the_file_has_changed(
    tmp_path, write_dicom, monkeypatch
):
    series = Series(write_dicom, tmp_path / "raw" / "a" / "b")
    series.body()
    parsed = []
    read = headers.parse
    monkeypatch.setattr(headers, "parse", lambda path, *a: parsed.append(path) or read(path, *a))
    given = ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3)
    write_chunk(given, tmp_path / "0")
    assert len(parsed) == len(set(parsed)) == len(BODY)
    first = read_converted([tmp_path / "0"])[0]["pixel_sha256"][0]
    series.n = 0
    series.body(body=BODY + 1)
    write_chunk(given, tmp_path / "0")
    assert read_converted([tmp_path / "0"])[0]["pixel_sha256"][0] != first


# --- memory ---------------------------------------------------------------------------------------


def peak_of(work, *given) -> int:
    """Bytes that are held at most while `work` runs, above those before; numpy's are counted too."""
    tracemalloc.start()
    try:
        work(*given)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_a_volume_is_never_three_times_in_memory_and_others_do_not_add_to_it(tmp_path, slope):
    (tmp_path / "raw" / "a").mkdir(parents=True)
    side, largest = 192, 2 * 192**3
    for k, n in enumerate([side, 96, 96, 96]):
        voxels = np.random.default_rng(k).integers(-5, 5, (n,) * 3, dtype=np.int16)
        image = nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1]))  # turned round on the way
        image.header.set_slope_inter(slope, 0.0)
        nib.save(image, tmp_path / "raw" / "a" / f"{k}.nii")
    params = ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3)
    assert peak_of(write_chunk, params, tmp_path / "0") < 3 * largest
    recipe = NormaliseParams(dataset="d", recipe=RecipeSettings(size=48, ndim=3))
    assert peak_of(make_store, recipe, [tmp_path / "0"], tmp_path / "store") < 3 * largest


@pytest.mark.parametrize(
    "recipe",
    [
        {"normalise": "zscore"},
        {"normalise": "zscore", "within": "foreground"},
        {"foreground": True},
        {"normalise": "nyul"},
    ],
)
def test_neither_statistics_nor_the_foreground_take_several_volumes(tmp_path, recipe):
    (tmp_path / "raw" / "a").mkdir(parents=True)
    side, largest = 160, 2 * 160**3
    away = sum(
        (np.indices((side,) * 3, np.int16, sparse=True)[k] - side / 2) ** 2 for k in range(3)
    )
    body = np.where(away < 60**2, 300, 5) + np.random.default_rng(0).integers(-5, 5, (side,) * 3)
    nib.save(nib.Nifti1Image(body.astype(np.int16), np.eye(4)), tmp_path / "raw/a/b.nii")
    write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3), tmp_path / "0")
    params = NormaliseParams(dataset="d", recipe=RecipeSettings(size=48, ndim=3, **recipe))
    foreground_mask(body[::8, ::8, ::8], False)  # what it imports is not of a volume
    assert peak_of(make_store, params, [tmp_path / "0"], tmp_path / "store") < 3.2 * largest


@settings(deadline=None)
@given(NUMBERS)
def test_mean_and_deviation_are_those_of_numpy(image):
    wide = image.astype(np.float64)
    expected = (wide.mean(), wide.std())
    assert order.mean_and_deviation(image) == pytest.approx(expected, rel=1e-9, abs=1e-9)
