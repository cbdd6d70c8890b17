"""A chunk of scans that is killed repeats itself and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from workflows import PARTS, ROOT, Clone, environment

from fewscans.config.stages import ConvertParams
from fewscans.convert.paths import chunk_of, scan_key

CHUNKS, SCANS = 3, 90


@pytest.fixture
def clone(tmp_path):
    """Images enough that a chunk takes a while to convert."""
    rng = np.random.default_rng(0)
    rows = ["path,label,patient"]
    (tmp_path / "raw").mkdir()
    for k in range(SCANS):
        Image.fromarray(rng.integers(0, 256, (900, 900), dtype=np.uint8)).save(
            tmp_path / f"raw/{k}.tif"
        )
        rows.append(f"{k}.tif,{k % 2},{k}")
    (tmp_path / "raw/labels.csv").write_text("\n".join(rows))
    for part in PARTS:
        (tmp_path / part).symlink_to(ROOT / part)
    settings = {
        "datasets": {"d": {"root": "raw", "table": "labels.csv", "chunks": CHUNKS}},
        "recipes": {"m": {"size": 16}},
        "baselines": ["majority"],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    return Clone(tmp_path)


def targets(number: int) -> list[str]:
    return [f"work/d/converted/{chunk}/index.parquet" for chunk in range(number)]


def convert(clone: Clone, chunk: int) -> subprocess.Popen[bytes]:
    """The script of one chunk, as the rule calls it."""
    root = clone.folder / "raw"
    params = ConvertParams(
        dataset="d", root=str(root), table=str(root / "labels.csv"), chunk=chunk, chunks=CHUNKS
    )
    command = [sys.executable, str(ROOT / "scripts/convert.py"), "--params", params.model_dump_json()]  # fmt: skip
    out = clone.folder / f"work/d/converted/{chunk}"
    here = {**environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, "--out", str(out)], env=here, stderr=subprocess.DEVNULL)


def half_written(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob(".pixels.bin.*.tmp"))


@pytest.mark.slow
def test_a_killed_chunk_repeats_only_itself(clone):
    folders = [clone.folder / f"work/d/converted/{chunk}" for chunk in range(CHUNKS)]
    assert [convert(clone, chunk).wait() for chunk in range(2)] == [0, 0]
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*")}
    assert len(before) == 4
    running = convert(clone, 2)
    while not half_written(folders[2]):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    # What it had begun stands under no final name.
    assert list(folders[2].glob("[!.]*")) == []
    said = clone.run("--configfile", "c.yaml", "--cores", "1", *targets(CHUNKS)).stdout
    assert said.count("localrule convert:") == said.count("Finished jobid") == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = sum(chunk_of(scan_key("d", f"{k}.tif"), CHUNKS) == 2 for k in range(SCANS))
    size = (folders[2] / "pixels.bin").stat().st_size
    assert size == kept * 900 * 900
