"""Scans in a MedMNIST-like .npz."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from convert_factory import RNG

from fewscans.config.stages import ConvertParams
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.npz import NpzReader
from fewscans.convert.sources import list_scans
from fewscans.errors import UserError


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
    assert "Write `ndim: 3` in the recipe" in npz_problem(
        path, train_images=np.zeros((2, 8, 8, 8), np.uint8)
    )
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
