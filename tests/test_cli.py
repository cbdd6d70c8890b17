"""The frame of scripts: what it does to files from the future."""

from __future__ import annotations

import os
import time

from fewscans.cli import date_now


def test_inputs_from_the_future_are_dated_now(tmp_path):
    """Else Snakemake fails the job for as long as the clock of the node that wrote them is ahead."""
    (tmp_path / "store").mkdir()
    names = ["folds", "old", "store/rows", "pair", "other"]
    for name in names:
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (time.time() + 7200,) * 2)
    os.utime(tmp_path / "old", (1000, 1000))
    values = [
        str(tmp_path / "folds"), tmp_path / "old", [str(tmp_path / "store")],
        [f"demo={tmp_path}/pair"], '{"n": 1}', None, 3, str(tmp_path / "none"), "x" * 5000,
    ]  # fmt: skip
    dated = date_now(values)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in dated) == [
        "folds",
        "pair",
        "store/rows",
    ]
    ahead = [n for n in names if (tmp_path / n).stat().st_mtime > time.time() + 60]
    assert ahead == ["other"]
    assert (tmp_path / "old").stat().st_mtime == 1000
    assert date_now(values) == []
