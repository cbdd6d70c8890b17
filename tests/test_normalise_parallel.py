"""Several processes write one store: the same bytes, whatever their number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.errors import UserError
from fewscans.normalise import make_store, write
from fewscans.normalise.parallel import each
from tests.slurm.processes import wait_until


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

    def noted(function, items, workers):
        made = each(partial(with_process, function), items, workers)
        used.append({process for process, _ in made})
        return [one for _, one in made]

    monkeypatch.setattr(write, "each", noted)
    expected = stored(volumes, "one", 1, **recipe)
    assert stored(volumes, "three", 3, **recipe) == expected
    assert used[0] == {os.getpid()}
    assert 0 < len(used[1] - used[0]) == len(used[1]) <= 3


def with_process(function, item):
    return os.getpid(), function(item)


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


def one_over(item):
    return 1 / item


def test_what_a_scan_raises_comes_out_as_it_is(volumes):
    (volumes / "0/pixels.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="cut short"):
        stored(volumes, "one", 2)
    with pytest.raises(ZeroDivisionError):
        each(one_over, [1, 0], 2)


SLEEPERS = """
import os, sys, time
from pathlib import Path
from fewscans.normalise.parallel import each
from tests.slurm.processes import wait_until

def sleep(item):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

each(sleep, range(2), 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills processes with their parent")
def test_processes_end_with_one_that_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", SLEEPERS, str(tmp_path)])
    try:
        wait_until("both", lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    children = [int(path.name) for path in tmp_path.iterdir()]
    wait_until("their end", lambda: not any(map(runs, children)))


def runs(process):
    """Whether it is there, and not only waiting to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
