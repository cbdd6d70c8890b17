"""Public volumes go through to 3D stores: how many, how large, with which values and spacing."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.sources import in_chunk, list_scans
from fewscans.normalise import make_store
from fewscans.store import Store

SIZE = 16
EXPECTED = Path(__file__).parent / "data/dicom_series_quirks.csv"
# A chunk of a data set of 1,584: 32 on average.
CHUNKS = 50


def hippocampus(root: Path, folder: Path) -> tuple[dict[str, Any], int]:
    return {"root": str(root), "table": str(root / "dataset.json")}, 60


def series(root: Path, folder: Path) -> tuple[dict[str, Any], int]:
    """Each folder is a row; how many volumes there are is the table of `test_series_quirks`."""
    rows = list(csv.DictReader(EXPECTED.read_text().splitlines()))
    names = sorted({row["file"].partition("/")[0] for row in rows})
    (folder / "labels.csv").write_text("\n".join(["path", *names]))
    n = len({row["scan"] for row in rows if row["outcome"] == "ok"})
    return {"root": str(root), "table": str(folder / "labels.csv")}, n


def adrenal(root: Path, folder: Path) -> tuple[dict[str, Any], int]:
    """A chunk of it, read from the stream."""
    place = {"npz": str(root / "adrenalmnist3d_64.npz"), "chunks": CHUNKS}
    everything = list_scans(ConvertParams(dataset="d", ndim=3, **place))
    assert len(everything) == 1584
    return place, len(in_chunk(everything, 0, CHUNKS))


# Data set -> (what convert is told and how many volumes come out, whether they have a spacing, and a place).
SETS: dict[str, tuple[Callable[[Path, Path], tuple[dict[str, Any], int]], bool]] = {
    "hippocampus_nifti": (hippocampus, True),
    "dicom_series_quirks": (series, True),
    "adrenalmnist3d_64": (adrenal, False),
}


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_becomes_a_store(shared_data, tmp_path, name):
    told, placed = SETS[name]
    place, n = told(shared_data(name), tmp_path)
    facts = write_chunk(ConvertParams(dataset="d", ndim=3, **place), tmp_path / "converted")
    assert facts["scans"] == n > 10
    recipe = {"ndim": 3, "size": SIZE}
    made = NormaliseParams.model_validate({"dataset": "d", "recipe": recipe})
    make_store(made, [tmp_path / "converted"], tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert store.voxels.shape == (n, 1, SIZE, SIZE, SIZE)
    index, read_pixels = read_converted([tmp_path / "converted"])
    kept = index[index["status"] == "ok"].set_index("scan")
    assert sorted(kept.index) == sorted(store.scans)
    for voxels, row in zip(store.voxels, store.rows.to_dict("records"), strict=True):
        scan = {"scan": row["scan"], **kept.loc[row["scan"]]}
        fitted, spacing = expected_grid(scan["shape"], scan["spacing_mm"])
        np.testing.assert_allclose(row["spacing_mm"], spacing if placed else [], rtol=1e-6)
        assert len(scan["spacing_mm"]) == len(scan["affine"]) / 4 == (3 if placed else 0)
        x = voxels * store.facts["scale"]
        assert x.min() >= 0
        assert x.max() <= 1
        assert x.std() > 0.01
        body = x[0][middle(fitted)]
        assert x.sum() == pytest.approx(body.sum())  # around it there is filling, which is 0
        pixels = read_pixels(scan)
        physical = body * row["scale"] + row["intercept"]
        low, high = np.quantile(pixels, [0.005, 0.995])
        slack = 0.02 * (high - low)
        assert low - slack <= physical.min() <= physical.max() <= high + slack
        # Nothing is mirrored and no axis stands for another: halves are as bright as they were.
        clipped = pixels[0].clip(low, high).astype(np.float64)
        for axis in range(3):
            np.testing.assert_allclose(
                lean(physical, axis), lean(clipped, axis), atol=0.08 * (high - low)
            )


def expected_grid(shape: Any, spacing_mm: Any) -> tuple[list[int], list[float]]:
    """(axes of the body in the store, their spacing): the longest axis, in mm, has all voxels."""
    extents = np.multiply(shape, spacing_mm if len(spacing_mm) else 1.0)
    fitted = [max(1, round(SIZE * extent / max(extents))) for extent in extents]
    return fitted, (extents / fitted).tolist()


def middle(fitted: list[int]) -> tuple[slice, ...]:
    return tuple(slice((SIZE - n) // 2, (SIZE - n) // 2 + n) for n in fitted)


def lean(volume: np.ndarray, axis: int) -> float:
    """By how much the second half along `axis` is brighter than the first."""
    profile = volume.mean(axis=tuple(other for other in range(3) if other != axis))
    where = (np.arange(len(profile)) + 0.5) / len(profile)
    return float(profile[where > 0.5].mean() - profile[where < 0.5].mean()) if len(profile) > 1 else 0.0  # fmt: skip
