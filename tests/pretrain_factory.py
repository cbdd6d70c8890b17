"""A working folder for pretraining: store, folds, and the script as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from engine_factory import make_folds, make_store

from fewscans.contracts import read_table
from fewscans.pretrain import pretrain
from fewscans.resident import Resident
from fewscans.training_job import Job
from fewscans.training_scans import choose_scans

ROOT = Path(__file__).resolve().parent.parent


class Place:
    """A working folder with a store and folds."""

    def __init__(self, folder: Path, n: int = 12) -> None:
        self.folder = folder
        self.store = make_store(folder / "store", n=n)
        self.folds = make_folds(folder / "folds.parquet", self.store.scans)

    def run(self, params, name="out", *, cache="cache", pools=None):
        out = self.folder / name
        facts = pretrain(
            params,
            self.store,
            self.folds,
            pools or {},
            out,
            self.folder / cache,
            self.folder / "checkpoints",
        )
        return out, facts

    def job(self, params):
        sources = choose_scans(read_table(self.folds, "folds"), params, [self.store])
        return Job(params, sources, Resident(self.store, sources.scans), torch.device("cpu"))


def meta(out: Path) -> dict:
    return json.loads((out / "encoder.json").read_text())


def history(out: Path) -> pd.DataFrame:
    """Without what depends on the clock."""
    return read_table(out / "history.parquet", "history").drop(
        columns=["images_per_s", "memory_mb"]
    )


def command(place: Place, params, name: str) -> list[str]:
    folder = place.folder
    return [
        sys.executable, str(ROOT / "scripts/pretrain.py"), "--params", params.model_dump_json(),
        "--store", str(folder / "store"), "--folds", str(place.folds), "--pool", "--out", str(folder / name),
        "--cache", str(folder / "cache"), "--checkpoints", str(folder / "checkpoints"),
    ]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )


def wait_for_state(place: Place, process: subprocess.Popen, digest: str) -> None:
    path = place.folder / "checkpoints" / digest / "state.pt"
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
