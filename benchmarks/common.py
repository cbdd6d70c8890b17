"""What the measures share: clocks, spreads, stores of noise, children with a process of their own, the results file."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fewscans.contracts import write_table  # noqa: E402
from fewscans.files import write_json  # noqa: E402
from fewscans.keyed import key_of  # noqa: E402
from fewscans.shape import Shape  # noqa: E402
from fewscans.store import ROWS, SEAL, VOXELS, voxel_digest  # noqa: E402
from fewscans.training_job import device_name, versions  # noqa: E402

# Seconds that a child may take.
CHILD_S = 900


class SyntheticStore:
    """Noise, or what is given as `voxels` [N, C, *S], in the place of a store on disk; it needs no digests."""

    def __init__(
        self, n: int, shape: Shape, dtype: str = "int16", voxels: np.ndarray | None = None
    ) -> None:
        top = np.iinfo(dtype).max
        made = np.random.default_rng(0).integers(0, top + 1, (n, *shape.full), dtype=dtype)
        self.voxels = made if voxels is None else voxels
        self.scale, self.intercept = 1 / int(np.iinfo(self.voxels.dtype).max), 0.0
        self.scans = [f"{key_of('bench', i):016x}" for i in range(n)]
        self._row = {scan: i for i, scan in enumerate(self.scans)}

    def row_of(self, scan: str) -> int:
        """Row of `scan`."""
        return self._row[scan]

    def digests(self, scans: Sequence[str]) -> list[str]:
        """Not used here."""
        return ["" for _ in scans]


def write_store(
    folder: Path, scans: Sequence[str], shape: Shape, voxels: np.ndarray | None = None
) -> None:
    """A store on disk as `Store` reads it, of uint8; noise without `voxels`, then memory does not grow with it."""
    folder.mkdir(parents=True)
    n, digests, rng = len(scans), [], np.random.default_rng(0)
    kept = np.lib.format.open_memmap(folder / VOXELS, "w+", np.uint8, (n, *shape.full))
    for i in range(n):
        made = rng.integers(0, 256, shape.full, np.uint8) if voxels is None else voxels[i]
        kept[i] = made
        digests.append(voxel_digest(made))
    kept.flush()
    rows = pd.DataFrame({
        "row": range(n), "scan": list(scans), "shape": [list(shape.axes)] * n,
        "spacing_mm": [[1.0] * shape.ndim] * n, "pixel_sha256": digests, "scale": 1.0, "intercept": 0.0,
    })  # fmt: skip
    write_table(folder / ROWS, "rows", rows)
    facts = {"dataset": "bench", "dtype": "uint8", "n": n, "scale": 1 / 255, "intercept": 0.0}
    write_json(folder / SEAL, {**facts, **shape.facts(), "digest": "bench"})


def now(device: torch.device | str = "cpu") -> tuple[float, float]:
    """Seconds on the wall, and of this process on all its processors."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float], device: torch.device | str = "cpu") -> tuple[float, float]:
    """The same, since `began`."""
    wall, cpu = now(device)
    return wall - began[0], cpu - began[1]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return {
        "median": round(middle, digits),
        "quartile_low": round(low, digits),
        "quartile_high": round(high, digits),
    }


def in_child(work: Callable[..., Any], *arguments: object) -> tuple[str, float]:
    """(what `work` gives, as text; peak MB of resident memory) of a function in a process of its own.

    Forked before this process has grown: what it holds already counts. A child that is killed, fails, or has not ended
    after `CHILD_S` (threads that get no memory may wait for ever) gives "".
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(CHILD_S)
        code = 1
        try:
            os.write(send, str(work(*arguments)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    _, _, usage = os.wait4(child, 0)
    with os.fdopen(receive, "rb") as pipe:
        return pipe.read().decode(), usage.ru_maxrss / 1024


def write_results(
    out: Path | None, cases: Sequence[Any], device: torch.device | str = "cpu", **facts: Any
) -> None:
    """To `out`, where it is given: `cases` with machine, versions, date and how busy the machine was."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {
        "date": datetime.now(UTC).date().isoformat(), "machine": device_name(torch.device(device)),
        "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1), "versions": versions(), **facts,
        "cases": list(cases),
    })  # fmt: skip
