"""How much of a pretraining is training: images/s of the real loop over forward, backward and step alone.

Both run in this process on one method, optimizer and batch shape, turn about, in repeats of some steps: the loop
gathers, casts, augments, masks, schedules, keeps gauges and history and shows progress; the other is given views that
are there already. The measure is the median over repeats of the ratio of neighbours, so that what else the machine
does falls on both.

    python benchmarks/engine.py --threads 1 2 --repeats 9
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import ENCODERS
from fewscans.config.models import ComputeSettings
from fewscans.files import write_json
from fewscans.keyed import key_of
from fewscans.resident import Resident

CASES = (("simclr", "test_resnet"), ("mae", "test_vit"), ("simmim", "test_resnet"))


class SyntheticStore:
    """int16 noise in the place of a store on disk."""

    scale, intercept = 1 / 32767, 0.0

    def __init__(self, n: int, size: int) -> None:
        self.voxels = np.random.default_rng(0).integers(0, 32768, (n, 1, size, size), dtype=np.int16)
        self.scans = [f"{key_of('bench', i):016x}" for i in range(n)]
        self._row = {scan: i for i, scan in enumerate(self.scans)}

    def row_of(self, scan: str) -> int:
        """Row of `scan`."""
        return self._row[scan]

    def digests(self, scans: list[str]) -> list[str]:
        """Not used here."""
        return ["" for _ in scans]


def measure(name: str, backbone: str, *, threads: int, size: int, batch: int, steps: int, repeats: int, device: str) -> dict[str, Any]:
    """Images/s of both, and the ratio: median and range over `repeats`."""
    place = optim.set_up(ComputeSettings(threads=threads, device=device))
    settings = ENCODERS[name](backbone=backbone)
    store = SyntheticStore(3 * batch, size)
    resident = Resident(store, store.scans, place)
    encoder = networks.make_encoder(backbone, size=size, channels=1, patch_size=None, init_key=0)
    method = methods.load(name)(encoder, settings, size=size, channels=1)
    optim.place(method, place)
    # As many epochs as there are repeats and one to warm up, each of `steps` steps of the real loop.
    epochs = (repeats + 1) * steps // 3 + 1
    precision = optim.precision_of(ComputeSettings(), place)
    schedule = engine.Schedule(epochs, batch, 3, 1e-4, 0.05, 0.1, None, 0, precision)
    training = engine.Training(method, resident, schedule, label=name)
    views = method.views(training.batch(0))

    def alone() -> float:
        method.train()
        began = _now(place)
        for _ in range(steps):
            engine.train_step(method, training.optimizer, views, precision)
        return _now(place) - began

    def real() -> float:
        end = training.step + steps
        training.should_stop = lambda: training.step >= end
        began = _now(place)
        try:
            training.run()
        except engine.StoppedError:
            pass
        return _now(place) - began

    alone(), real()
    pairs = [(alone(), real()) if i % 2 else (real(), alone())[::-1] for i in range(repeats)]
    ratios = [a / r for a, r in pairs]
    images = steps * batch
    return {
        "method": name, "backbone": backbone, "threads": threads, "size": size, "batch": batch,
        "device": str(place), "repeats": repeats, "steps": steps,
        "real_images_per_s": round(images / statistics.median(r for _, r in pairs), 1),
        "alone_images_per_s": round(images / statistics.median(a for a, _ in pairs), 1),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3), "ratio_high": round(max(ratios), 3),
    }  # fmt: skip


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> int:
    """Print a line per case; with --out also write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6, help="in a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = []
    for threads in given.threads:
        for name, backbone in CASES:
            one = measure(
                name, backbone, threads=threads, size=given.size, batch=given.batch, steps=given.steps,
                repeats=given.repeats, device=given.device,
            )  # fmt: skip
            made.append(one)
            print(json.dumps(one), flush=True)
    if given.out:
        write_json(given.out, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
