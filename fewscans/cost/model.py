"""What a job is expected to take, and where that is known from: measured, scaled, declared or unknown.

`expected` is wall time of the rule's command: interpreter, imports and work, with the neighbours that a machine full of
such jobs has. It is without Snakemake's and Slurm's own time around the job.

In this order:

- ``measured:N``: the median of N jobs of the same settings (see `fewscans.cost.history`),
- ``scaled``: from jobs that differ in length alone, or from a calibration of this kind of machine,
- ``declared``: rates of one slow machine, for all that is no training and for the demo's networks on a processor,
- ``unknown``: no number, counted as such.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from fewscans.cost import calibration, history, sizes
from fewscans.cost.calibration import DECLARED, Machine
from fewscans.cost.footprint import Footprint
from fewscans.cost.history import History
from fewscans.cost.work import Work
from fewscans.files import digest
from fewscans.plan import RULES, Plan

# How far above the expectation 95 of 100 jobs stay.
SPREAD = {"measured": 1.2, "scaled": 1.35, "declared": 2.0}
FEW = 5
# Settings that make a job longer, but no other kind of work.
LENGTHS = {"epochs", "steps", "extra_steps", "warmup", "checkpoint_minutes", "lr", "weight_decay"}
# A network that nobody has measured: only ratios of such numbers are used.
GUESS = calibration.Rate(0.01, 0.002)


@dataclass(frozen=True)
class Estimate:
    """Of one job."""

    seconds: float
    p95: float
    source: str
    mem_mb: int
    output_mb: int
    output_files: int
    scratch_mb: int = 0

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.source != "unknown"


class _Amounts(Machine):
    """The declared machine, with a guess for every other network."""

    def step(self, wanted: calibration.Step) -> calibration.Rate:
        """Never None."""
        return super().step(wanted) or GUESS


YARDSTICK = _Amounts(
    "amounts",
    "cpu",
    startup=DECLARED.startup,
    scans=DECLARED.scans,
    steps=DECLARED.steps,
    declared=True,
)


class Model:
    """Estimates of a plan's jobs; each kind of job is thought about once.

    Parameters
    ----------
    plan
        What will be done.
    measured
        History; without it that of the plan's working folder.
    machines
        Calibrations; without them the user's file.
    """

    def __init__(
        self,
        plan: Plan,
        measured: History | None = None,
        machines: dict[str, Machine] | None = None,
    ) -> None:
        self.plan, self.work = plan, Work(plan)
        self.footprint = Footprint(plan, self.work)
        self._history, self._machines = measured, machines
        self._estimates: dict[tuple[str, ...], Estimate] = {}
        self._marks: dict[tuple[str, ...], tuple[str, float]] = {}

    @cached_property
    def history(self) -> History:
        """Read when first asked."""
        if self._history is not None:
            return self._history
        return History.read(self.plan.config.work)

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """Read when first asked."""
        return calibration.read() if self._machines is None else self._machines

    def machine(self, rule: str) -> Machine:
        """What jobs of a rule run on, as far as known; the declared one where nothing was measured."""
        from fewscans.cluster.site import current_site

        device = self.work.device if RULES.get(rule) == "gpu" else "cpu"
        site = current_site()
        model = site.job_class("gpu").gpu_model if site is not None and device == "cuda" else None
        found = calibration.choose(self.machines, device, model)
        if found is not None:
            return found
        # Nothing is declared of GPUs but that their jobs start.
        return DECLARED if device == "cpu" else Machine("none", "cuda", declared=True)

    # -- one job -------------------------------------------------------------------------------------------------------
    def of(self, rule: str, encoder: str = "", recipe: str = "", dataset: str = "") -> Estimate:
        """The estimate for jobs of `rule` with these wildcards; folds and seeds do not matter."""
        key = (rule, encoder, recipe, dataset)
        if key not in self._estimates:
            self._estimates[key] = self._estimate(*key)
        return self._estimates[key]

    def _estimate(self, *job: str) -> Estimate:
        seconds, p95, source = self._seconds(*job)
        made = self.footprint.output(*job)
        scratch = self.footprint.scratch(job[0], job[1])
        return Estimate(seconds, p95, source, self.memory(*job), *made, scratch)

    def _seconds(self, *job: str) -> tuple[float, float, str]:
        found = self.history.like(*self.mark(*job))
        if found is not None:
            seconds, same = found
            middle = median(seconds)
            spread = SPREAD["measured" if same else "scaled"]
            p95 = history.quantile(seconds, 0.95) if len(seconds) >= FEW else max(seconds)
            return (
                middle,
                max(p95, middle * spread),
                f"measured:{len(seconds)}" if same else "scaled",
            )
        machine = self.machine(job[0])
        rule, *where = job
        value, known = self.work.seconds(rule, machine, *where)
        source = "declared" if machine.declared else "scaled"
        if not known and not machine.declared and machine.device == "cpu":
            # Measured for another config: what it lacks is declared, at this machine's pace.
            value, known = self.work.seconds(rule, _filled(machine), *where)
            source = "declared"
        if not known:
            return 0.0, 0.0, "unknown"
        return value, value * SPREAD[source], source

    def mark(self, *job: str) -> tuple[str, float]:
        """(key, amount) of a job: under which its measurement is kept, and how much work it was."""
        if job not in self._marks:
            self._marks[job] = self.key(*job), self.amount(*job)
        return self._marks[job]

    def amount(self, *job: str) -> float:
        """Declared seconds: the yardstick that measurements are scaled by; never a claim."""
        rule, *where = job
        # Where scans cannot be counted, all jobs of the kind are taken to be alike.
        return self.work.seconds(rule, YARDSTICK, *where)[0] or 1.0

    def key(self, rule: str, encoder: str, recipe: str, dataset: str) -> str:
        """Digest of all settings that change the pace of a job's work."""
        config = self.plan.config
        said: dict[str, Any] = {"rule": rule, "dataset": dataset}
        if recipe:
            said["recipe"] = self.plan.recipes[recipe].model_dump(mode="json")
        if encoder:
            settings = self.plan.encoders[encoder].settings.model_dump(mode="json", exclude=LENGTHS)
            said |= {"encoder": settings, "device": self.work.device}
            said["compute"] = config.compute.model_dump(mode="json", exclude={"device"})
        if rule == "finetune":
            said["protocols"] = self.plan.protocols(encoder)
            used = config.protocol_settings.model_dump(mode="json")
            said["settings"] = {
                name: {k: v for k, v in used[name].items() if k not in LENGTHS}
                for name in said["protocols"]
                if name in used
            }
        return digest(json.dumps(said, sort_keys=True))[:16]

    def memory(self, rule: str, encoder: str, recipe: str, dataset: str) -> int:
        """MB that a job is given: seen before with a margin, else from sizes."""
        from fewscans.cluster.site import current_site

        around = sizes.SNAKEMAKE_MB if current_site() is not None else 0
        seen, sure = self.history.rss_mb(self.mark(rule, encoder, recipe, dataset)[0])
        if encoder and getattr(self.plan.encoders[encoder].settings, "ranks", 1) > 1:
            sure = False  # what srun starts is no child of the job's script, so it is not seen
        used = seen if sure else max(seen, self.footprint.memory(rule, encoder, recipe, dataset))
        return max(sizes.FLOOR_MB, sizes.rounded(sizes.MARGIN * used + around))


def _filled(machine: Machine) -> Machine:
    """`machine`, with declared rates at its pace where it has none of its own."""
    pace = machine.pace
    scans = {rule: pace * rate for rule, rate in DECLARED.scans.items()} | machine.scans
    steps = {
        step: calibration.Rate(pace * rate.base, pace * rate.image)
        for step, rate in DECLARED.steps.items()
    } | machine.steps
    startup = {**DECLARED.startup, **machine.startup}
    return Machine(machine.name, machine.device, startup=startup, scans=scans, steps=steps)
