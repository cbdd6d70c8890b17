"""One of the processes that `fewscans calibrate` measures with: a request a line on stdin, an answer a line on stdout.

    {"step": {"what": "pretrain", "method": "simclr", ...}, "images": [64, 128], "encoder": {...}, "seconds": 2}
    -> {"seconds": [0.11, 0.21]}

The steps are those of real jobs, on made-up scans; results are thrown away. With one thread on a processor seconds are
those of the process, not of the wall clock: others who use the machine now will not be there later, or they will.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fewscans import __version__, methods, networks, optim
from fewscans.config import ENCODERS
from fewscans.config.models import ComputeSettings, FinetuneSettings
from fewscans.cost.calibration import processor
from fewscans.engine import Schedule, StoppedError, Training
from fewscans.errors import UserError
from fewscans.protocols import finetune, linear  # noqa: F401 (a job's own imports: part of its start)
from fewscans.protocols.task import Task
from fewscans.resident import Resident
from fewscans.shape import Shape

# Epochs are as short as in small studies: the end of an epoch belongs to its steps.
STEPS_PER_EPOCH = 4
FOREVER = 1_000_000
WARM_STEPS = 2


class Scans:
    """As much of a store as `Resident` reads."""

    scale, intercept = 1 / 32767, 0.0

    def __init__(self, n: int, shape: Shape) -> None:
        generator = np.random.default_rng(0)
        self.scans = [f"{i:064x}" for i in range(n)]
        self.voxels = generator.integers(0, 32767, (n, *shape.full), dtype=np.int16)

    def row_of(self, scan: str) -> int:
        """Row of a scan."""
        return int(scan, 16)

    def digests(self, scans: Sequence[str]) -> list[str]:
        """Not looked at."""
        return list(scans)


class Bench:
    """Measures steps on one device.

    Parameters
    ----------
    compute
        Threads, device, precision; as of a training job.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.compute = compute
        self.device = optim.set_up(compute)
        self.alone = self.device.type == "cpu" and compute.threads == 1

    def now(self) -> float:
        """Seconds on the clock that counts."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.alone else time.perf_counter()

    def about(self) -> dict[str, Any]:
        """What this machine is."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else processor()
        made = {"name": name, "device": self.device.type, "torch": torch.__version__}
        return {**made, "fewscans": __version__, "cpu_s": time.process_time()}

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Median seconds of a step for each number of images."""
        of = {"pretrain": self.pretrain, "finetune": self.finetune, "embed": self.embed}
        measure = of[request["step"]["what"]]
        return {"seconds": [measure(request, n) for n in request["images"]]}

    def pretrain(self, request: dict[str, Any], images: int) -> float:
        """A step of self-supervised pretraining: views, loss, backward, optimizer, ends of epochs."""
        step = request["step"]
        settings: Any = ENCODERS[step["method"]].model_validate(request["encoder"])
        resident = self._resident(step, images * STEPS_PER_EPOCH)
        kind = methods.load(step["method"])
        method = optim.place(kind(self._encoder(step), settings, Shape.of(step)), self.device)
        schedule = Schedule(
            epochs=FOREVER, batch_size=images, steps_per_epoch=STEPS_PER_EPOCH, lr=1e-4, weight_decay=0.0, warmup=0.0,
            clip_grad_norm=None, seed_key=0, precision=optim.precision_of(self.compute, self.device),
            optimizer=settings.optimizer, accumulate=min(settings.accumulate, max(1, images // 2)), ema=settings.ema,
        )  # fmt: skip
        watch = Watch(self.now, request["seconds"], STEPS_PER_EPOCH)
        with contextlib.suppress(StoppedError):
            Training(method, resident, schedule, should_stop=watch.look).run()
        return watch.seconds_per_step()

    def finetune(self, request: dict[str, Any], images: int) -> float:
        """A step of supervised training."""
        step = request["step"]
        n = max(2 * images, 8)
        task = Task(
            labelled=np.arange(n), targets=np.arange(n) % 2, inner=np.full(n, -1), test=np.arange(2), n_classes=2
        )  # fmt: skip
        source = Source(self, step, self._resident(step, n))
        settings = FinetuneSettings(steps=FOREVER, batch_size=max(2, images))

        def seconds(steps: int) -> float:
            began = self.now()
            finetune.train(task, np.arange(n), settings, source, [steps], lambda *_: None)
            return self.now() - began

        seconds(WARM_STEPS)
        one = seconds(4) / 4
        steps = min(2000, max(4, round(request["seconds"] / max(one, 1e-6))))
        return seconds(steps) / steps

    def embed(self, request: dict[str, Any], images: int) -> float:
        """Embeddings of `images` scans."""
        step = request["step"]
        resident, model = self._resident(step, images), self._encoder(step)
        model = optim.place(model, self.device)
        watch = Watch(self.now, request["seconds"])
        while not watch.look():
            networks.embed(model, resident, np.arange(images))
        return watch.seconds_per_step()

    def _resident(self, step: dict[str, Any], n: int) -> Resident:
        scans = Scans(n, Shape.of(step))
        return Resident(scans, scans.scans, self.device)  # type: ignore[arg-type]  # all it reads of a store

    def _encoder(self, step: dict[str, Any]) -> torch.nn.Module:
        return networks.make_encoder(
            step["backbone"],
            Shape.of(step),
            patch_size=step["patch_size"],
            init_key=0,
        )


class Watch:
    """Stops after some seconds; the first steps, which are slower, do not count."""

    def __init__(self, now: Callable[[], float], seconds: float, at_least: int = 2) -> None:
        self.now, self.window, self.at_least = now, seconds, at_least
        self.times: list[float] = []

    def look(self) -> bool:
        """Called after each step; whether it is enough."""
        self.times.append(self.now())
        counted = len(self.times) - WARM_STEPS - 1
        return counted >= self.at_least and self.times[-1] - self.times[WARM_STEPS] >= self.window

    def seconds_per_step(self) -> float:
        """Mean of whole steps after the warm-up."""
        return (self.times[-1] - self.times[WARM_STEPS]) / (len(self.times) - WARM_STEPS - 1)


class Source:
    """As much of a protocol's source as training from scratch takes."""

    frozen = False

    def __init__(self, bench: Bench, step: dict[str, Any], resident: Resident) -> None:
        self.bench, self.step, self.resident, self.device = bench, step, resident, bench.device
        self.precision = optim.precision_of(bench.compute, bench.device)

    def make_encoder(self, key: int) -> torch.nn.Module:
        """A fresh network."""
        return self.bench._encoder(self.step)

    def autocast(self) -> Any:
        """As in a job."""
        return optim.autocast(self.device, self.precision)


def answer(work: Callable[[], dict[str, Any]]) -> None:
    """Print what came of it, or why nothing did, on one line."""
    try:
        made = work()
    except (UserError, RuntimeError, ValueError) as error:  # RuntimeError: out of memory on a GPU
        made = {"error": str(error).splitlines()[0]}
    print(json.dumps(made), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer requests until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compute", default="{}", help="threads, device, precision as JSON")
    arguments = parser.parse_args(argv)
    logging.disable(logging.INFO)
    try:
        bench = Bench(ComputeSettings.model_validate_json(arguments.compute))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    answer(bench.about)
    for line in sys.stdin:
        request = json.loads(line)
        answer(lambda request=request: bench.measure(request))  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
