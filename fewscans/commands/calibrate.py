"""``fewscans calibrate``: what a step takes on this machine, for the networks, sizes and methods of a config."""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewscans.commands import run_config
from fewscans.cost.calibration import Machine, keep, path

HELP = "measure what the steps of a config take on this machine, for the plan"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, where it is kept."""
    run_config.add_arguments(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="other than the config's")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ENCODER", help="these encoders only"
    )
    parser.add_argument("--no-data", action="store_true", help="leave out conversion and its like")
    parser.add_argument(
        "--at-once", type=_positive, metavar="N", help="processes side by side (default: cores / threads, 1 on a GPU)"
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="per measurement (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help=f"file that is added to (default: {path()})")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep."""
    from fewscans.plan import expand

    plan = expand(run_config.read(arguments))
    unknown = sorted(set(arguments.only) - set(plan.encoders))
    if unknown:
        from fewscans.errors import UserError

        raise UserError(
            f"--only: no such encoder: {', '.join(unknown)}. There are: {', '.join(plan.encoders)}"
        )
    _warn_if_busy()
    began = time.perf_counter()
    machine = _steps(plan, arguments)
    if machine.device == "cpu" and not arguments.no_data:
        _data(plan, machine)
    written = keep(machine, arguments.out)
    print(f"kept in {written} ({time.perf_counter() - began:.0f} s)")
    return 0


def _warn_if_busy() -> None:
    """What others do on the machine is measured too, in part."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.7 * cores:
        print(
            f"this machine is busy (load {load:.1f} on {cores} cores): better measure when it is idle"
        )


def _steps(plan: Any, arguments: argparse.Namespace) -> Machine:
    from fewscans.cost.measure import AROUND, Workers, plain_start, wanted

    compute = plan.config.compute
    if arguments.device:
        compute = compute.model_copy(update={"device": arguments.device})
    at_once = arguments.at_once or _at_once(compute)
    plain = plain_start(at_once)
    with Workers(compute, at_once) as workers:
        about = workers.about
        machine = Machine(
            about["name"],
            about["device"],
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            torch=about["torch"],
            at_once=at_once,
            startup={
                "plain": round(plain, 3),
                "torch": round(workers.started_s * (1 + AROUND), 3),
            },
        )
        print(f"{machine.name} ({machine.device}), {at_once} at once, torch {machine.torch}")
        print(f"  start-up: {plain:.2f} s, of a training job {machine.startup['torch']:.2f} s")
        for one in wanted(plan, arguments.only):
            rate = workers.rate(one, arguments.seconds)
            machine.steps[one.step] = rate
            step, n = one.step, one.images[1]
            print(
                f"  {step.what:9} {step.method:7} {step.backbone}, {step.size} pixels, "
                f"{n} images: {rate.seconds(n):.4f} s a step",
                flush=True,
            )
    return machine


def _at_once(compute: Any) -> int:
    """Processes that jobs of this size fill the machine with."""
    from fewscans.cost.measure import MOST

    if compute.device == "cuda" or (compute.device == "auto" and os.path.exists("/dev/nvidia0")):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST, (cores or 1) // compute.threads))


def _data(plan: Any, machine: Machine) -> None:
    from fewscans.cost.measure import data_rates

    for name in plan.config.datasets:
        rates = data_rates(plan, name, machine.startup["plain"])
        for rule, seconds in rates.items():
            machine.scans[f"{rule}/{name}"] = round(seconds, 6)
            machine.scans[rule] = max(machine.scans.get(rule, 0.0), round(seconds, 6))
        shown = ", ".join(f"{rule} {1000 * s:.1f} ms" for rule, s in rates.items())
        print(f"  {name}: {shown or 'its scans cannot be read here'}", flush=True)
