"""How pretraining grows with scans: seconds and peak memory of a start and of an epoch, and a store above the memory.

Each size is a process of its own, SimCLR on `test_resnet` over a store on disk of uint8 noise, loaded as
`fewscans pretrain` does. Of a long epoch `--steps` steps are run and the rest is counted with their median. Memory is
the largest resident set (`ru_maxrss`) beyond that of a process that has imported everything, and of it what is no file
mapped into memory.

The last measure is of larger scans in batches of 8: it allows a process less memory of its own (RLIMIT_DATA, which
mapped files do not count to) than the voxels take, and says whether it trains, and how fast.

    python benchmarks/engine_growth.py --scans 500 5000 50000 --out benchmarks/results/engine_growth.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import in_child, write_results, write_store

from fewscans import engine, methods, networks, optim
from fewscans.batches import epoch_batches
from fewscans.config.encoders import METHODS
from fewscans.config.models import ComputeSettings
from fewscans.resident import Resident
from fewscans.shape import Shape
from fewscans.store import Store

BACKBONE = "test_resnet"


def train(folder: Path, batch: int, limit_mb: int, given: argparse.Namespace) -> str:
    """JSON of seconds and MB; `error` where the limit was in the way."""
    base = _status()
    if limit_mb:
        soft = int((base["VmData"] + limit_mb) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))
    try:
        made = _train(folder, batch, given)
    except (MemoryError, RuntimeError) as error:  # torch says the latter
        made = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    peak, anonymous = _status()["VmHWM"] - base["VmHWM"], _status()["RssAnon"] - base["RssAnon"]
    return json.dumps({**made, "peak_mb": round(peak, 1), "not_of_files_mb": round(anonymous, 1)})


def _train(folder: Path, wanted: int, given: argparse.Namespace) -> dict[str, Any]:
    place = optim.set_up(ComputeSettings(threads=given.threads, device="cpu"))
    began = time.perf_counter()
    store = Store.open(folder)
    resident = Resident(store, store.scans, place)
    loading = time.perf_counter() - began
    per_epoch, batch = epoch_batches(len(store), wanted)
    encoder = networks.make_encoder(BACKBONE, store.shape, patch_size=None, init_key=0)
    method = methods.load("simclr")(
        encoder, METHODS["simclr"].model_validate({"backbone": BACKBONE}), store.shape
    )
    schedule = engine.Schedule(100, batch, per_epoch, 1e-3, 1e-4, 0.1, None, 0, "fp32")
    ends: list[tuple[float, float]] = [(time.perf_counter(), time.process_time())]
    n = min(max(given.steps, 1), 3 * per_epoch)
    training = engine.Training(method, resident, schedule)

    def should_stop() -> bool:
        ends.append((time.perf_counter(), time.process_time()))
        return training.step > n

    training.should_stop = should_stop
    with contextlib.suppress(engine.StoppedError):
        training.run()
    wall, cpu = (
        statistics.median(np.diff([one[i] for one in ends[1:]])) for i in (0, 1)
    )  # the first step warms up
    return {
        "batch": batch,
        "steps_in_epoch": per_epoch, "steps_run": n, "loading_s": round(loading, 3),
        "step_s": round(wall, 4), "step_processor_s": round(cpu, 4), "epoch_s": round(wall * per_epoch, 2),
        "us_per_scan_processor": round(1e6 * cpu / batch, 1),
    }  # fmt: skip


def _status() -> dict[str, float]:
    """MB by name, of this process as Linux counts them."""
    found = re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return {name: int(kilobytes) / 1024 for name, kilobytes in found}


def main() -> int:
    """Print a line per size; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=int, nargs="*", default=[500, 5_000, 50_000])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60, help="at most; an epoch may have more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", type=int, default=600, help="MB of the store above; 0: none")
    parser.add_argument("--large-size", type=int, default=128, help="of its scans")
    parser.add_argument("--limit", type=int, default=400, help="MB to take then; 0: any")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cases = [(n, given.size, given.batch, 0) for n in given.scans]
    if given.large:
        n = given.large * 2**20 // Shape(given.large_size).pixels
        cases.append((n, given.large_size, min(8, given.batch), given.limit))
    made = []
    for n, size, batch, limit in cases:
        shape = Shape(size)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "store")
            # In a process of its own, so that this one stays small: what a child is given counts as its own.
            in_child(write_store, folder, [f"{i:016x}" for i in range(n)], shape)
            said, peak = in_child(train, folder, batch, limit, given)
        one = {
            "scans": n, "size": size, "batch": batch, "limit_mb": limit or None,
            "voxels_mb": round(n * shape.pixels / 2**20, 1), "maxrss_mb": round(peak, 1),
            **(json.loads(said) if said else {"error": "killed, or waited for ever"}),
        }  # fmt: skip
        made.append(one)
        print(json.dumps(one), flush=True)
    write_results(given.out, made, threads=given.threads, method="simclr", backbone=BACKBONE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
