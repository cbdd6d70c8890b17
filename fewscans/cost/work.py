"""How much work a job is: images, steps and scans, and the seconds these take on a machine.

One instance per plan; nothing here reads a file but the label tables' numbers of rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fewscans.batches import epoch_batches, training_steps
from fewscans.config.encoders import ScratchLong
from fewscans.cost import sizes
from fewscans.cost.calibration import Machine, Step, What
from fewscans.cost.counts import Counts, count
from fewscans.plan import Plan
from fewscans.protocols import NEEDS
from fewscans.rawdata import chunks_of

# Where data are not counted yet, seconds are unknown; memory and disk are of so many scans.
ASSUMED = Counts(2000, 1000)
# Logistic regression with seven candidates: seconds of a run, and per labelled scan and 100 features; the same for kNN.
LINEAR_S, LINEAR_SCAN_S, CANDIDATES = 0.09, 0.0006, 7
KNN_S, KNN_SCAN_S = 0.02, 0.00015
ROW_S = 5e-5
# aggregate: a start, each job's tables, each arm x budget x unit at 2,000 resamples. report: a start, each data set.
AGGREGATE_S, AGGREGATE_JOB_S, AGGREGATE_CELL_S = 0.9, 0.021, 0.06
REPORT_S, REPORT_DATASET_S = 3.5, 5.5
# Imports, tables, and some hundred pictures at most, however many scans there are.
AUDIT_PAGE_S = 4.0


@dataclass(frozen=True)
class Labelled:
    """Labelled scans of one budget and draw."""

    scans: int
    runs: int


class Rough:
    """Seconds added up, and whether each came from what the machine knows."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.seconds, self.known = machine, 0.0, True

    def steps(self, number: float, images: float, step: Step) -> None:
        """`number` steps of `images` images; unknown networks add nothing."""
        rate = self.machine.step(step)
        if rate is None:
            self.known = False
        else:
            self.seconds += number * rate.seconds(images)


class Work:
    """Amounts of work of the jobs of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.config = plan, plan.config
        self._counts: dict[str, Counts | None] = {}

    def counts(self, dataset: str) -> Counts | None:
        """Scans and patients of a data set; None where nobody knows yet."""
        if dataset not in self._counts:
            self._counts[dataset] = count(self.config, dataset)
        return self._counts[dataset]

    @cached_property
    def device(self) -> Literal["cpu", "cuda"]:
        """What trainings compute on: as asked for, else a GPU where the site or this machine has one."""
        asked = self.config.compute.device
        if asked != "auto":
            return asked
        from fewscans.cluster.site import current_site

        site = current_site()
        if site is None:
            return "cuda" if os.path.exists("/dev/nvidia0") else "cpu"
        partition = site.partition("gpu")
        return "cuda" if partition is not None and partition.max_gpu else "cpu"

    # -- seconds -------------------------------------------------------------------------------------------------------
    def seconds(
        self, rule: str, machine: Machine, encoder: str, recipe: str, dataset: str
    ) -> tuple[float, bool]:
        """(seconds of a job in its script, whether all of it is known) on `machine`."""
        if rule == "pretrain":
            return self._pretrain(machine, encoder, recipe, dataset)
        if rule == "finetune":
            return self._finetune(machine, encoder, recipe, dataset)
        start = machine.startup.get("plain", 0.55)
        if rule in ("plan", "folds", "budgets"):
            return start + 0.05 * machine.pace, True
        if rule == "weights":
            return machine.startup.get("torch", 4.2), True
        if rule in ("aggregate", "learns", "shareable"):
            return start + self._aggregate() * machine.pace, True
        if rule == "audit_page":
            return start + AUDIT_PAGE_S * machine.pace, True
        if rule == "report":
            n = len(self.plan.evaluated)
            return start + (REPORT_S + REPORT_DATASET_S * n) * machine.pace, True
        counts = self.counts(dataset) if dataset else None
        rate = machine.scans.get(f"{rule}/{dataset}", machine.scans.get(rule))
        if counts is None or rate is None:
            return 0.0, False
        scans = counts.scans / self._chunks(rule, dataset)
        if rule == "normalise" and self.plan.recipes[recipe].is_fitted:
            # Those that it is fitted on are read twice.
            scans += counts.trained(self.folds) if dataset in self.plan.evaluated else scans
        return start + rate * scans, True

    def _chunks(self, rule: str, dataset: str) -> int:
        return chunks_of(self.config, dataset) if rule == "convert" else 1

    def _pretrain(
        self, machine: Machine, name: str, recipe: str, dataset: str
    ) -> tuple[float, bool]:
        found = Rough(machine)
        steps, batch = self.schedule(name, dataset)
        settings: Any = self.plan.encoders[name].settings
        ranks = getattr(settings, "ranks", 1)
        step = self.step("pretrain", name, recipe)
        found.steps(steps, batch / ranks, step)
        known = found.known and self._all_counted(dataset)
        return machine.startup.get("torch", 4.2) + found.seconds, known

    def _finetune(
        self, machine: Machine, name: str, recipe: str, dataset: str
    ) -> tuple[float, bool]:
        protocols = self.plan.protocols(name)
        counts = self.counts(dataset)
        tested = (counts or ASSUMED).held_out(self.folds)
        found = Rough(machine)
        rows = 0
        for budget in self.labelled(dataset):
            rows += budget.runs * len(protocols) * tested
            for protocol in protocols:
                self.protocol(found, protocol, name, recipe, dataset, budget, tested)
        if any(NEEDS[protocol] == "features" for protocol in protocols):
            scans = (counts or ASSUMED).scans * self.plan.recipes[recipe].parts
            found.steps(1, scans, self.step("embed", name, recipe))
        images = any(NEEDS[protocol] != "nothing" for protocol in protocols)
        start = machine.startup.get("torch" if images else "plain", 0.6)
        known = found.known and self._all_counted(dataset)
        return start + found.seconds + ROW_S * rows * machine.pace, known

    def protocol(
        self, found: Rough, protocol: str, name: str, recipe: str, dataset: str, budget: Labelled,
        tested: int,
    ) -> None:  # fmt: skip
        """Add what the draws of a budget take by one protocol, `tested` scans predicted by each."""
        settings = self.config.protocol_settings
        share = sizes.weights(self.plan.encoders[name].settings.backbone)[1] / 100
        pace = found.machine.pace
        if protocol == "linear":
            run = LINEAR_S + LINEAR_SCAN_S * budget.scans * max(1.0, share)
            found.seconds += budget.runs * run * len(settings.linear.c) / CANDIDATES * pace
        elif protocol == "knn":
            run = KNN_S + KNN_SCAN_S * budget.scans * max(1.0, share)
            found.seconds += budget.runs * run * pace
        elif protocol == "finetune":
            tuned = settings.finetune
            steps = tuned.steps + self.extra_steps(name, recipe, dataset)
            batch = max(2, min(tuned.batch_size, budget.scans))
            trainings = budget.runs * (1 + tuned.inner_folds)
            found.steps(trainings * steps, batch, self.step("finetune", name, recipe))
            looks = budget.runs * (tested + 4 * min(1, tuned.inner_folds) * budget.scans)
            looks *= self.plan.recipes[recipe].parts
            found.steps(1, looks, self.step("embed", name, recipe))

    def _aggregate(self) -> float:
        """Seconds beyond the start on the declared machine."""
        cells = len(self.plan.arms) * len(self.config.budgets) * len(self.plan.evaluated)
        score = self.config.score
        scored = cells * len(score.units) * score.resamples / 2000
        jobs = sum(1 for _ in self.plan.runs())
        return AGGREGATE_S + AGGREGATE_JOB_S * jobs + AGGREGATE_CELL_S * scored

    # -- amounts -------------------------------------------------------------------------------------------------------
    @property
    def folds(self) -> int:
        """Of a grouped split."""
        return self.config.validation.folds

    def step(self, what: What, name: str, recipe: str) -> Step:
        """A step of this encoder at this recipe."""
        encoder, shape = self.plan.encoders[name], self.plan.recipes[recipe]
        compute = self.config.compute
        return Step(
            what,
            encoder.method if what == "pretrain" else "",
            encoder.settings.backbone,
            encoder.settings.patch_size,
            shape.seen.size,
            shape.channels,
            compute.threads,
            compute.precision,
            shape.ndim,
        )

    def schedule(self, name: str, dataset: str) -> tuple[int, int]:
        """(steps, scans in a step) of a pretraining."""
        settings: Any = self.plan.encoders[name].settings
        ranks = getattr(settings, "ranks", 1)
        steps, batch = epoch_batches(self.seen(name, dataset), settings.batch_size, ranks)
        return training_steps(steps, settings.epochs, settings.steps), batch

    def seen(self, name: str, dataset: str) -> int:
        """Scans that a pretraining sees: its fold's (all, where transductive) and those of pools."""
        everything = getattr(self.plan.encoders[name].settings, "transductive", False)
        return self._trained_on(dataset, everything)

    def _trained_on(self, dataset: str, everything: bool = False) -> int:
        counts = self.counts(dataset) or ASSUMED
        own = counts.scans if everything else counts.trained(self.folds)
        pools = self.config.datasets[dataset].pools
        return own + sum((self.counts(pool) or ASSUMED).scans for pool in pools)

    def extra_steps(self, name: str, recipe: str, dataset: str) -> int:
        """Steps of `scratch-long` beyond those of fine-tuning."""
        settings = self.plan.encoders[name].settings
        if not isinstance(settings, ScratchLong):
            return 0
        if settings.extra_steps is not None:
            return settings.extra_steps
        network = (settings.backbone, settings.patch_size)
        n = self._trained_on(dataset)
        return max((one.count(n) for one in self.plan.pretrainings(*network, recipe)), default=0)

    def labelled(self, dataset: str) -> Iterator[Labelled]:
        """Labelled scans of each budget, and how often it is drawn."""
        counts = self.counts(dataset) or ASSUMED
        for budget in self.config.budgets:
            draws = 1 if budget == "all" else self.config.validation.draws
            yield Labelled(counts.labelled(budget, self.folds), draws)

    def _all_counted(self, dataset: str) -> bool:
        names = [dataset, *self.config.datasets[dataset].pools]
        return all(self.counts(name) is not None for name in names)
