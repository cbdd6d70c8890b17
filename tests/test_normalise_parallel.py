"""Several processes write one store: the same bytes, whatever their number."""

from __future__ import annotations

import os
import signal

import nibabel as nib
import numpy as np
import pytest

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.errors import UserError
from fewscans.normalise import make_store, write
from fewscans.normalise.parallel import each


@pytest.fixture
def volumes(tmp_path):
    """Seven volumes of different size, converted."""
    (tmp_path / "raw/a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(7):
        voxels = rng.integers(-1000, 1000, (9 + k, 8, 12 - k), dtype=np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), tmp_path / f"raw/a/{k}.nii")
    write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3), tmp_path / "0")
    return tmp_path


def stored(folder, name, workers, **recipe):
    params = NormaliseParams(dataset="d", recipe=RecipeSettings(size=16, ndim=3, **recipe))
    make_store(params, [folder / "0"], folder / name, workers=workers)
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


@pytest.mark.parametrize("recipe", [{}, {"normalise": "nyul"}, {"foreground": True, "clahe": 0.01}])
def test_a_store_by_several_processes_is_the_same_bytes(volumes, monkeypatch, recipe):
    used = []
    monkeypatch.setattr(
        write, "each", lambda function, items, workers: used.append(workers) or each(function, items, workers)
    )  # fmt: skip
    expected = stored(volumes, "one", 1, **recipe)
    monkeypatch.setattr(write, "_at_once", lambda kept, recipe, workers: workers)
    assert stored(volumes, "three", 3, **recipe) == expected
    assert used == [1, 3]


def test_few_scans_are_not_worth_a_process(volumes, monkeypatch):
    used = []
    monkeypatch.setattr(
        write, "each", lambda function, items, workers: used.append(workers) or each(function, items, 1)
    )  # fmt: skip
    stored(volumes, "two", 8)
    shape = [512, 512, 512]
    many = write.pd.DataFrame({"shape": [shape] * 4})
    assert used == [1]
    assert write._at_once(many, RecipeSettings(size=16, ndim=3), 8) == 4
    assert write._at_once(many[:1], RecipeSettings(size=16, ndim=3), 8) == 1
    assert write._at_once(many, RecipeSettings(size=16, ndim=3), 2) == 2


def end(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_process_is_told_in_words():
    assert each(end, [1, 2, 4], 2) == [1, 2, 4]
    with pytest.raises(
        UserError, match="one of 2 processes was killed, most likely for want of memory"
    ):
        each(end, range(6), 2)


def test_what_a_scan_raises_comes_out_as_it_is(volumes):
    (volumes / "0/pixels.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="cut short"):
        stored(volumes, "one", 2)
    with pytest.raises(ZeroDivisionError):
        each(lambda item: 1 / item, [1, 0], 2)
