"""How much of a pretraining is training: images/s of the real loop over forward, backward and step alone.

Both run in this process on one method, optimizer and batch shape, turn about, epoch by epoch: the loop
gathers, casts, augments, masks, schedules, keeps gauges and history and shows progress; the other is given views that
are there already. The measure is the median over repeats of the ratio of neighbours, so that what else the machine
does falls on both; the same ratio of processor time is steadier where others use the machine. Beside it, the shares of
the loop's time in which batches are read and views are made.

    python benchmarks/engine.py --threads 1 --repeats 15
    python benchmarks/engine.py --cases simclr:test_resnet mae:monai-test-vit:3d dino:test_resnet
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from pathlib import Path
from typing import Any

from common import SyntheticStore, now, since, spread, write_results

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import ENCODERS
from fewscans.config.models import ComputeSettings
from fewscans.resident import Resident
from fewscans.shape import Shape

# A method, a network, and "3d" where it is trained on volumes.
CASES = (
    "simclr:test_resnet", "mae:test_vit", "simmim:test_resnet", "dino:test_resnet",
    "simclr:monai-test-resnet:3d", "mae:monai-test-vit:3d",
)  # fmt: skip


def measure(case: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Images/s of both, and the ratio: median and quartiles over repeats."""
    name, backbone, *rest = case.split(":")
    size, batch = (given.size_3d, given.batch_3d) if rest else (given.size, given.batch)
    shape = Shape(size, 1, 3 if rest else 2)
    steps, repeats = given.steps, given.repeats
    place = optim.set_up(ComputeSettings(threads=threads, device=given.device))
    settings = ENCODERS[name](backbone=backbone)
    store: Any = SyntheticStore(3 * batch, shape)
    resident = Resident(store, store.scans, place)
    encoder = networks.make_encoder(backbone, shape, patch_size=None, init_key=0)
    method = methods.load(name)(encoder, settings, shape)
    optim.place(method, place)
    # As many epochs as there are repeats and one to warm up, each of `steps` steps of the real loop.
    epochs = (repeats + 1) * steps // 3 + 1
    precision = optim.precision_of(ComputeSettings(), place)
    schedule = engine.Schedule(epochs, batch, 3, 1e-4, 0.05, 0.1, None, 0, precision)
    training = engine.Training(method, resident, schedule, label=name)
    views = method.views(training.batch(0))

    def alone() -> tuple[float, float]:
        method.train()
        began = now(place)
        for _ in range(steps):
            engine.train_step(method, training.optimizer, views, precision)
        return since(began, place)

    def real() -> tuple[float, float]:
        end = training.step + steps
        training.should_stop = lambda: training.step >= end
        began = now(place)
        with contextlib.suppress(engine.StoppedError):
            training.run()
        return since(began, place)

    def parts() -> tuple[float, float]:
        """Seconds of processor time in which a step's batch is read, and its views are made."""
        began = now(place)
        read = training.batch(training.step)
        gathered = since(began, place)[1]
        began = now(place)
        method.views(read)
        return gathered, since(began, place)[1]

    alone(), real(), parts()
    turns = [
        (alone(), real(), parts()) if i % 2 else (*(real(), alone())[::-1], parts())
        for i in range(repeats)
    ]
    wall, cpu = zip(*[(a[0] / r[0], a[1] / r[1]) for a, r, _ in turns], strict=True)
    images = steps * batch
    step_s = statistics.median(r[1] for _, r, _ in turns) / steps
    gathered, viewed = (statistics.median(p[i] for *_, p in turns) / step_s for i in (0, 1))
    return {
        "method": name, "backbone": backbone, "threads": threads, "size": size, "ndim": shape.ndim, "batch": batch,
        "device": str(place), "repeats": repeats, "steps": steps,
        "real_images_per_s": round(images / statistics.median(r[0] for _, r, _ in turns), 1),
        "alone_images_per_s": round(images / statistics.median(a[0] for a, *_ in turns), 1),
        "ratio": spread(wall), "ratio_of_processor_time": spread(cpu),
        "share_reading": round(gathered, 3), "share_views": round(viewed, 3),
    }  # fmt: skip


def main() -> int:
    """Print a line per case; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", default=CASES, help="METHOD:NETWORK or METHOD:NETWORK:3d"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size-3d", type=int, default=32)
    parser.add_argument("--batch-3d", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="in a repeat; 3 are an epoch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = []
    for threads in given.threads:
        for case in given.cases:
            one = measure(case, threads, given)
            made.append(one)
            print(json.dumps(one), flush=True)
    write_results(given.out, made, made[0]["device"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
