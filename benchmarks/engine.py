"""How much of a pretraining is training: images/s of the real loop over forward, backward and step alone.

Both run in this process on one method, optimizer and batch shape, turn about, epoch by epoch: the loop
gathers, casts, augments, masks, schedules, keeps gauges and history and shows progress; the other is given views that
are there already. The measure is the median over repeats of the ratio of neighbours, so that what else the machine
does falls on both; the same ratio of processor time is steadier where others use the machine.

    python benchmarks/engine.py --threads 1 2 --repeats 15
"""

from __future__ import annotations

import argparse
import contextlib
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
from fewscans.shape import Shape

CASES = (("simclr", "test_resnet"), ("mae", "test_vit"), ("simmim", "test_resnet"))


class SyntheticStore:
    """int16 noise in the place of a store on disk."""

    scale, intercept = 1 / 32767, 0.0

    def __init__(self, n: int, size: int) -> None:
        self.voxels = np.random.default_rng(0).integers(
            0, 32768, (n, 1, size, size), dtype=np.int16
        )
        self.scans = [f"{key_of('bench', i):016x}" for i in range(n)]
        self._row = {scan: i for i, scan in enumerate(self.scans)}

    def row_of(self, scan: str) -> int:
        """Row of `scan`."""
        return self._row[scan]

    def digests(self, scans: list[str]) -> list[str]:
        """Not used here."""
        return ["" for _ in scans]


def measure(
    name: str,
    backbone: str,
    *,
    threads: int,
    size: int,
    batch: int,
    steps: int,
    repeats: int,
    device: str,
) -> dict[str, Any]:
    """Images/s of both, and the ratio: median and range over `repeats`."""
    place = optim.set_up(ComputeSettings(threads=threads, device=device))
    settings = ENCODERS[name](backbone=backbone)
    store = SyntheticStore(3 * batch, size)
    resident = Resident(store, store.scans, place)
    encoder = networks.make_encoder(backbone, Shape(size), patch_size=None, init_key=0)
    method = methods.load(name)(encoder, settings, Shape(size))
    optim.place(method, place)
    # As many epochs as there are repeats and one to warm up, each of `steps` steps of the real loop.
    epochs = (repeats + 1) * steps // 3 + 1
    precision = optim.precision_of(ComputeSettings(), place)
    schedule = engine.Schedule(epochs, batch, 3, 1e-4, 0.05, 0.1, None, 0, precision)
    training = engine.Training(method, resident, schedule, label=name)
    views = method.views(training.batch(0))

    def alone() -> tuple[float, float]:
        method.train()
        began = _now(place)
        for _ in range(steps):
            engine.train_step(method, training.optimizer, views, precision)
        return _since(place, began)

    def real() -> tuple[float, float]:
        end = training.step + steps
        training.should_stop = lambda: training.step >= end
        began = _now(place)
        with contextlib.suppress(engine.StoppedError):
            training.run()
        return _since(place, began)

    alone(), real()
    pairs = [(alone(), real()) if i % 2 else (real(), alone())[::-1] for i in range(repeats)]
    wall, cpu = zip(*[(a[0] / r[0], a[1] / r[1]) for a, r in pairs], strict=True)
    images = steps * batch
    return {
        "method": name, "backbone": backbone, "threads": threads, "size": size, "batch": batch,
        "device": str(place), "repeats": repeats, "steps": steps,
        "real_images_per_s": round(images / statistics.median(r[0] for _, r in pairs), 1),
        "alone_images_per_s": round(images / statistics.median(a[0] for a, _ in pairs), 1),
        "ratio": _spread(wall), "ratio_of_processor_time": _spread(cpu),
    }  # fmt: skip


def _spread(values: tuple[float, ...]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {
        "median": round(middle, 3),
        "quartile_low": round(low, 3),
        "quartile_high": round(high, 3),
    }


def _now(device: torch.device) -> tuple[float, float]:
    """Seconds on the wall, and of this process on all its processors."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def _since(device: torch.device, began: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _now(device)
    return wall - began[0], cpu - began[1]


def main() -> int:
    """Print a line per case; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="in a repeat; 3 are an epoch")
    parser.add_argument("--repeats", type=int, default=15)
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
