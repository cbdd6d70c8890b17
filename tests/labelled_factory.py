"""A tiny data set as the stages before fine-tuning leave it: two classes, one fold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fewscans.contracts import write_table
from fewscans.store import voxel_digest

DATASET, SIZE = "tiny", 16


def scan_key(number: int) -> str:
    """A key like those of `convert`."""
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def draw_images(targets: np.ndarray, seed: int) -> np.ndarray:
    """[N, 1, 16, 16] uint8: upright or lying bars in noise; no pixel or mean tells the class."""
    rng = np.random.default_rng(seed)
    bars = (np.arange(SIZE) // 2 % 2)[None, :] * np.ones((SIZE, 1))
    images = np.empty((len(targets), 1, SIZE, SIZE), np.uint8)
    for i, target in enumerate(targets):
        shifted = np.roll(bars, rng.integers(4), axis=1)
        drawn = (
            (shifted if target else shifted.T) * 110 + 60 + rng.normal(scale=25, size=(SIZE, SIZE))
        )
        images[i, 0] = np.clip(drawn, 0, 255)
    return images


def make_tiny(
    root: Path, n_patients: int = 20, n_test: int = 8, unlabelled: int = 2, ndim: int = 2
) -> dict[str, Path]:
    """Files of `n_patients` patients with two scans each, the last `unlabelled` without label.

    Fold ``0`` tests the first `n_test` patients. Budgets: ``4`` (draws 0 and 1, no inner folds),
    ``all`` (three inner folds). With `ndim` 3 each image is repeated along depth.
    """
    patient = np.repeat(np.arange(n_patients), 2)
    target = patient % 2
    labelled = patient < n_patients - unlabelled
    scans = [scan_key(i + 1) for i in range(len(patient))]
    paths = {"root": root, "store": root / "store"}
    images = draw_images(target, seed=0)
    cubes = np.repeat(images[:, :, None], SIZE, axis=2)
    _write_store(paths["store"], scans, cubes if ndim == 3 else images)
    names = np.where(labelled, np.array(["lying", "upright"])[target], "")
    labels = pd.DataFrame(
        {
            "scan": scans,
            "path": [f"{i}.png" for i in range(len(scans))],
            "patient": [f"p{p}" for p in patient],
            "group": [f"g{p}" for p in patient],
            "target": names,
            "split": "",
            "site": "",
            "status": "ok",
            "reason": "",
        }
    )
    test = patient < n_test
    folds = pd.DataFrame(
        {
            "scan": scans,
            "group": labels["group"],
            "fold": "0",
            "role": np.where(test, "test", "train"),
        }
    )
    rows = []
    pool = list(range(n_test, n_patients - unlabelled))
    for budget, draw, chosen, folded in (
        ("4", 0, pool[:4], 0),
        ("4", 1, pool[2:6], 0),
        ("all", 0, pool, 3),
    ):
        for i in np.flatnonzero(np.isin(patient, chosen)):
            inner = (chosen.index(patient[i]) // 2) % folded if folded else -1
            rows.append(
                {"fold": "0", "budget": budget, "draw": draw, "scan": scans[i], "inner": inner}
            )
    for name, frame in (("labels", labels), ("folds", folds), ("budgets", pd.DataFrame(rows))):
        paths[name] = root / f"{name}.parquet"
        write_table(paths[name], name, frame)
    return paths


def _write_store(folder: Path, scans: list[str], images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    ndim = images.ndim - 2
    np.save(folder / "voxels.npy", images)
    write_table(
        folder / "rows.parquet",
        "rows",
        pd.DataFrame(
            {
                "row": range(len(scans)),
                "scan": scans,
                "shape": [[SIZE] * ndim] * len(scans),
                "spacing_mm": [[1.0] * ndim] * len(scans),
                "pixel_sha256": [voxel_digest(image) for image in images],
                "scale": 1.0,
                "intercept": 0.0,
            }
        ),
    )
    facts = {
        "dataset": DATASET,
        "dtype": "uint8",
        "n": len(scans),
        "channels": 1,
        "size": SIZE,
        "scale": 1 / 255,
        "intercept": 0.0,
        "digest": "tiny",
        "ndim": ndim,
    }
    (folder / "store.json").write_text(json.dumps(facts))
