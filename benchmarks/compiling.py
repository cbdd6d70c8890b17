"""What torch.compile and channels_last are worth: a training step as it is, compiled, and with channels first.

Forward, backward and optimizer on views that are there, in one process, turn about; the measure is the median over
repeats of the ratio of neighbours, by the wall and by processor time. Compiling takes its own time, which is told: with
it stands how many steps have to follow before anything is won.

    python benchmarks/compiling.py --out benchmarks/results/compiling.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from common import SyntheticStore, now, since, spread, write_results

from fewscans import engine, methods, networks, optim
from fewscans.config.encoders import ENCODERS
from fewscans.config.models import ComputeSettings
from fewscans.methods.base import Method
from fewscans.resident import Resident
from fewscans.shape import Shape

CASES = ("simclr:test_resnet", "mae:test_vit", "simclr:resnet18", "simclr:monai-test-resnet:3d")


class Variant:
    """One way to train a step."""

    def __init__(self, method: Method, views: tuple[torch.Tensor, ...], precision: str) -> None:
        self.method, self.views, self.precision = method.train(), views, precision
        self.optimizer = optim.make_optimizer(method, 1e-4, 0.05)

    def steps(self, n: int, device: torch.device) -> tuple[float, float]:
        """Seconds of `n` steps: on the wall, of processors."""
        began = now(device)
        for _ in range(n):
            engine.train_step(self.method, self.optimizer, self.views, self.precision)
        return since(began, device)


def measure(case: str, given: argparse.Namespace) -> dict[str, Any]:
    """Facts of one method and network."""
    name, backbone, *rest = case.split(":")
    size, batch = (given.size_3d, given.batch_3d) if rest else (given.size, given.batch)
    shape = Shape(size, 1, 3 if rest else 2)
    place = optim.set_up(ComputeSettings(threads=given.threads, device=given.device))
    precision = optim.precision_of(ComputeSettings(), place)
    store: Any = SyntheticStore(batch, shape)
    resident = Resident(store, store.scans, place)

    def variant(kind: str) -> Variant:
        encoder = networks.make_encoder(backbone, shape, patch_size=None, init_key=0)
        method = methods.load(name)(encoder, ENCODERS[name](backbone=backbone), shape)
        optim.place(method, place)
        if kind == "channels-first":
            method.to(memory_format=torch.contiguous_format)
        schedule = engine.Schedule(1, batch, 1, 1e-4, 0.05, 0.1, None, 0, precision)
        views = method.views(engine.Training(method, resident, schedule).batch(0))
        if kind == "compiled":
            method.loss = torch.compile(method.loss)  # type: ignore[method-assign]
        return Variant(method, views, precision)

    made = {kind: variant(kind) for kind in ("as-is", "compiled", "channels-first")}
    began = time.perf_counter()
    made["compiled"].steps(1, place)
    compiling = time.perf_counter() - began
    for one in made.values():
        one.steps(1, place)
    turns = [
        {kind: made[kind].steps(given.steps, place) for kind in (made if i % 2 else reversed(made))}
        for i in range(given.repeats)
    ]
    facts: dict[str, Any] = {
        "method": name, "backbone": backbone, "ndim": shape.ndim, "size": size, "batch": batch, "precision": precision,
        "device": str(place), "threads": given.threads, "steps": given.steps, "repeats": given.repeats,
        "compiling_s": round(compiling, 1),
    }  # fmt: skip
    for kind in ("compiled", "channels-first"):
        for i, clock in enumerate(("wall", "processor")):
            facts[f"{kind}_{clock}"] = spread([t["as-is"][i] / t[kind][i] for t in turns])
    won = [(t["as-is"][0] - t["compiled"][0]) / given.steps for t in turns]
    middle = spread(won, 6)["median"]
    facts["steps_to_win"] = round(compiling / middle) if middle > 0 else None
    return facts


def main() -> int:
    """Print a line per case; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=CASES, help="METHOD:NETWORK[:3d]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size-3d", type=int, default=32)
    parser.add_argument("--batch-3d", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="in a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = []
    for case in given.cases:
        made.append(measure(case, given))
        print(json.dumps(made[-1]), flush=True)
    write_results(given.out, made, given.device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
