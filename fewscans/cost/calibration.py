"""What one step takes on a machine: measured by ``fewscans calibrate``, else declared for the networks of the demo.

The file is the user's, not the project's: a step takes the same in every folder. It lies in
``~/.cache/fewscans/calibration.json`` (``$XDG_CACHE_HOME``, or ``$FEWSCANS_CALIBRATION`` for another file), so that a
home shared with a cluster has the GPUs of the nodes beside the processor of the laptop::

    {"format": 1,
     "machines": {"NVIDIA H200": {
        "device": "cuda", "measured": "2026-11-23T12:00:00", "torch": "2.13.0", "at_once": 1,
        "startup": {"plain": 0.6, "torch": 4.2},
        "scans": {"convert": 0.002, "convert/covid": 0.002},
        "steps": [{"what": "pretrain", "method": "simclr", "backbone": "resnet18", "patch_size": null, "size": 64,
                   "channels": 1, "threads": 1, "precision": "auto", "base": 0.004, "image": 0.0003}]}}}

A step of B images takes ``base + image * B`` seconds, `image` growing with the pixels where another size was measured.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fewscans.config.backbones import SLICES, flat_name, seen_pixels, slices_of
from fewscans.files import write_json

VARIABLE = "FEWSCANS_CALIBRATION"
FORMAT = 1
What = Literal["pretrain", "finetune", "embed"]


@dataclass(frozen=True)
class Step:
    """What a step is a step of."""

    what: What
    method: str
    """Of pretraining; empty otherwise."""
    backbone: str
    patch_size: int | None
    size: int
    channels: int
    threads: int
    precision: str = "auto"
    ndim: int = 2


@dataclass(frozen=True)
class Rate:
    """Seconds of a step: `base` + `image` x images."""

    base: float
    image: float

    def seconds(self, images: float) -> float:
        """Of one step."""
        return self.base + self.image * images


@dataclass
class Machine:
    """What is known of one processor or GPU."""

    name: str
    device: str
    measured: str = ""
    torch: str = ""
    at_once: int = 1
    """Jobs that ran side by side while it was measured: they slow each other."""
    startup: dict[str, float] = field(default_factory=dict)
    """Seconds until a script works: `plain`, or `torch` with networks and protocols."""
    scans: dict[str, float] = field(default_factory=dict)
    """Seconds per scan, by rule, and by ``RULE/DATASET``: scans differ."""
    steps: dict[Step, Rate] = field(default_factory=dict)
    declared: bool = False
    """Not measured here."""

    def step(self, wanted: Step) -> Rate | None:
        """Rate of the step, at the nearest size that is known; None where nothing fits.

        A network of slices that was not measured itself takes what its image network takes for as many images.
        """
        near = [step for step in self.steps if _alike(step, wanted)]
        if not near and wanted.backbone.startswith(SLICES):
            slice_ = replace(wanted, backbone=flat_name(wanted.backbone), ndim=2)
            rate = self.step(slice_)
            return rate and Rate(rate.base, rate.image * slices_of(wanted.size))
        if not near:
            return None
        found = min(
            near,
            key=lambda s: (
                s.threads != wanted.threads,
                abs(s.size - wanted.size),
                s.patch_size != wanted.patch_size,
                abs(s.threads - wanted.threads),
            ),
        )
        rate = self.steps[found]
        asked, known = (seen_pixels(s.backbone, s.size, s.ndim) for s in (wanted, found))
        pixels = asked / known
        # Threads share the work of an image, not the fixed part; far from perfectly.
        threads = (found.threads / wanted.threads) ** 0.7
        return Rate(rate.base, rate.image * pixels * threads)

    @property
    def pace(self) -> float:
        """How many times slower than the declared machine Python starts here."""
        mine = self.startup.get("plain")
        return mine / DECLARED.startup["plain"] if mine else 1.0


def _alike(known: Step, wanted: Step) -> bool:
    same = ("what", "method", "backbone", "channels", "precision", "ndim")
    return all(getattr(known, name) == getattr(wanted, name) for name in same)


def _declared() -> Machine:
    """Two slow x86-64 cores, two jobs of one thread at once (benchmarks/README.md); the networks of the demo."""
    rates = {
        ("pretrain", "simclr", "test_resnet", None): Rate(0.012, 0.00166),
        ("pretrain", "simmim", "test_resnet", None): Rate(0.008, 0.00090),
        ("pretrain", "mae", "test_vit", 8): Rate(0.006, 0.00058),
        ("finetune", "", "test_resnet", None): Rate(0.009, 0.00076),
        ("finetune", "", "test_vit", 8): Rate(0.002, 0.00123),
        ("embed", "", "test_resnet", None): Rate(0.0, 0.0006),
        ("embed", "", "test_vit", 8): Rate(0.0, 0.0006),
    }
    steps = {
        Step(what, method, backbone, patch, 48, 1, 1): rate  # type: ignore[arg-type]
        for (what, method, backbone, patch), rate in rates.items()
    }
    return Machine(
        "declared",
        "cpu",
        startup={"plain": 0.55, "torch": 4.2},
        scans={"phantom": 0.0042, "convert": 0.0022, "audit": 0.0014, "normalise": 0.0013},
        steps=steps,
        declared=True,
    )


DECLARED = _declared()


# -- the file --------------------------------------------------------------------------------------


def path() -> Path:
    """Where the calibration lies."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "fewscans", "calibration.json")


def read(file: Path | None = None) -> dict[str, Machine]:
    """Machines by name; none where there is no file, or one of another format: then calibrate again."""
    try:
        raw = json.loads((file or path()).read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            return {}
        return {name: _machine(name, facts) for name, facts in raw["machines"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep(machine: Machine, file: Path | None = None) -> Path:
    """Add what was measured to the file; older measures of the same steps are replaced."""
    target = file or path()
    machines = read(target)
    before = machines.get(machine.name)
    if before is not None and before.torch == machine.torch:
        machine.steps = {**before.steps, **machine.steps}
        machine.scans = {**before.scans, **machine.scans}
        machine.startup = {**before.startup, **machine.startup}
    machines[machine.name] = machine
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = {name: _as_json(one) for name, one in machines.items()}
    write_json(target, {"format": FORMAT, "machines": shown})
    return target


def _machine(name: str, facts: dict[str, Any]) -> Machine:
    known = {f.name for f in fields(Step)}
    steps = {
        Step(**{key: value for key, value in one.items() if key in known}): Rate(
            float(one["base"]), float(one["image"])
        )
        for one in facts["steps"]
    }
    plain = {key: facts[key] for key in ("device", "measured", "torch", "at_once")}
    return Machine(name, **plain, startup=facts["startup"], scans=facts["scans"], steps=steps)


def _as_json(machine: Machine) -> dict[str, Any]:
    steps = [{**asdict(step), **asdict(rate)} for step, rate in machine.steps.items()]
    plain = {
        key: getattr(machine, key)
        for key in ("device", "measured", "torch", "at_once", "startup", "scans")
    }
    return {**plain, "steps": steps}


# -- which machine ---------------------------------------------------------------------------------


@lru_cache
def processor() -> str:
    """Name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()


def choose(machines: dict[str, Machine], device: str, model: str | None = None) -> Machine | None:
    """The machine that jobs meet: of the GPU model asked for, or this processor; else the one measured last.

    None where no machine of this kind was measured.
    """
    fitting = [one for one in machines.values() if one.device == device]
    if device == "cpu" and processor() in machines:
        return machines[processor()]
    if model:
        named = [one for one in fitting if _word(model) in _word(one.name)]
        if named or len({_word(one.name) for one in fitting}) > 1:
            fitting = named
    return max(fitting, key=lambda one: one.measured, default=None)


def _word(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
