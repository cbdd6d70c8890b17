"""A small store of textured images, folds, and settings of pretraining: what the engine's tests train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewscans.config.stages import PretrainParams
from fewscans.contracts import write_table
from fewscans.files import write_json
from fewscans.keyed import key_of
from fewscans.known import Known
from fewscans.store import Store, voxel_digest
from fewscans.values import Values

SIZE = 16

SLOWED = """
import runpy, sys, time
from fewscans.checkpoint import Checkpoint

save = Checkpoint.save

def slow(self, state):
    save(self, state)
    time.sleep(0.25)

Checkpoint.save = slow
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def slowed(command: list[str]) -> list[str]:
    """The script that `command` runs, a quarter of a second longer for each checkpoint: who waits for one finds it
    at work."""
    return [command[0], "-c", SLOWED, *command[1:]]


def scan_names(n: int, dataset: str = "cohort") -> list[str]:
    """Scan keys as the workflow makes them: 16 hex digits."""
    return [f"{key_of(dataset, i):016x}" for i in range(n)]


def make_store(
    folder: Path,
    n: int = 12,
    *,
    size: int = SIZE,
    channels: int = 1,
    dtype: str = "int16",
    dataset: str = "cohort",
) -> Store:
    """Write and open a store of `n` scans: stripes of different directions and widths, a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(key_of(dataset) % 2**32)
    y, x = np.mgrid[:size, :size] / size
    images = [
        0.5 + 0.4 * np.sin(2 * np.pi * (1 + i % 3) * (x * np.cos(i) + y * np.sin(i)))
        for i in range(n)
    ]
    values = np.clip(
        np.array(images)[:, None] + rng.normal(0, 0.02, (n, channels, size, size)), 0, 1
    )
    top = 255 if dtype == "uint8" else 32767
    voxels = np.rint(values * top).astype(dtype)
    np.save(folder / "voxels.npy", voxels)
    rows = pd.DataFrame({
        "row": range(n), "scan": scan_names(n, dataset), "shape": [[size, size]] * n, "spacing_mm": [[1.0, 1.0]] * n,
        "pixel_sha256": [voxel_digest(v) for v in voxels], "scale": 1.0, "intercept": 0.0,
    })  # fmt: skip
    write_table(folder / "rows.parquet", "rows", rows)
    facts = {
        "n": n, "channels": channels, "size": size, "dtype": dtype, "scale": 1 / top, "intercept": 0.0,
        "digest": voxel_digest(voxels),
    }  # fmt: skip
    write_json(folder / "store.json", facts)
    return Store.open(folder)


def make_known(n: int) -> Known:
    """Each of `n` scans a patient of its own, with two tables of values of which some scans lack one."""
    rng = np.random.default_rng(n)
    present = np.arange(n) % 4 != 1, np.arange(n) % 5 != 2
    tables = tuple(
        Values(
            name,
            tuple("abcde"[:width]),
            (rng.normal(size=(n, width)) * there[:, None]).astype(np.float32),
            there,
        )
        for name, width, there in zip(("labs", "genes"), (3, 5), present, strict=True)
    )
    return replace(Known.nothing(n), values=tables)


def make_folds(
    path: Path, scans: list[str], *, n_test: int = 4, pool: tuple[str, ...] = ()
) -> Path:
    """Two folds: "0" tests the first `n_test` scans, "1" the last; a group has two scans; `pool` joins both."""
    groups = [f"g{i // 2}" for i in range(len(scans))]
    rows = []
    for fold, tested in (("0", set(scans[:n_test])), ("1", set(scans[-n_test:]))):
        roles = ["test" if scan in tested else "train" for scan in scans]
        rows += [(s, g, fold, r) for s, g, r in zip(scans, groups, roles, strict=True)]
        rows += [(s, f"pool-{s}", fold, "pool") for s in pool]
    write_table(path, "folds", pd.DataFrame(rows, columns=["scan", "group", "fold", "role"]))
    return path


def make_params(
    method: str = "simclr", *, size: int = SIZE, fold: str = "0", seed: int = 0, **settings: Any
) -> PretrainParams:
    """Settings of a training of seconds."""
    backbone = "test_vit" if method == "mae" else "test_resnet"
    given = {"method": method, "backbone": backbone, "epochs": 2, "batch_size": 4, **settings}
    return PretrainParams.model_validate({
        "encoder": "mine", "settings": given, "recipe": {"size": size, "channels": 1}, "dataset": "cohort",
        "fold": fold, "seed": seed,
    })  # fmt: skip
