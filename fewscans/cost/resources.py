"""What each rule declares: memory, time and GPU for the executor, and the numbers that the plan reads.

`gpu`, `mem_mb` and `runtime` are asked for; `expected_s`, `expected_p95_s` (seconds of the rule's command),
`expected_from` (``measured:N``, ``scaled``, ``declared``, ``unknown``), `output_mb`, `output_files` and `scratch_mb`
(held while it runs) are told. All follow from settings, history and calibration, never from input files: a dry-run
knows each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from fewscans.cluster.site import Partition, Site, current_site
from fewscans.cost.model import Estimate, Model
from fewscans.cost.retries import CONTINUES
from fewscans.cost.retries import retries as count_retries
from fewscans.plan import RULES, Kind, Plan

# A limit: p95 with a margin, a start, and no less than a cluster's own resolution bears.
FACTOR, START_MIN = 1.5, 5
LEAST_MIN: dict[Kind, int] = {"light": 10, "cpu": 20, "gpu": 20}
# Where nothing is known of a job's length.
UNKNOWN_MIN: dict[Kind, int] = {"light": 30, "cpu": 120, "gpu": 480}
# Pretraining by several processes.
RANKS = "pretrain_ranks"
# Rules that do the work of another.
SAME_WORK = {RANKS: "pretrain", "normalise_fold": "normalise"}
# Rules with a job for each run.
MANY = ("pretrain", "finetune")
WORST = ("unknown", "declared", "scaled")


def nodes_of(ranks: int, site: Site | None) -> int:
    """Nodes that so many ranks need: by the GPUs of a node; one where nothing is known of them."""
    partition = site.partition("gpu") if site is not None else None
    return -(-ranks // partition.max_gpu) if partition is not None and partition.max_gpu else 1


class RuleResources:
    """Resources of the rules of a plan.

    Parameters
    ----------
    plan
        What will be done.
    model
        Estimates; without it from the plan's own history and the user's calibration.
    site
        What the cluster offers; without it the current one.
    whole
        Whether the whole plan is thought about while it is parsed. Not in jobs: they would read tables for nothing.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model | None = None,
        site: Site | None = None,
        *,
        whole: bool = True,
    ) -> None:
        self.plan, self.model, self.whole = plan, model or Model(plan), whole
        self.site = site if site is not None else current_site()

    def of(self, rule: str) -> dict[str, Any]:
        """The `resources:` of a rule, as functions of its wildcards."""

        def told(name: str) -> Callable[[Any], Any]:
            return lambda wildcards: getattr(self, name)(self.estimate(rule, wildcards))

        found = {
            "gpu": self._gpu(rule),
            "mem_mb": lambda wildcards, attempt: self.mem_mb(rule, wildcards, attempt),
            "runtime": lambda wildcards, attempt: self.runtime(rule, wildcards, attempt),
            "expected_s": told("expected_s"),
            "expected_p95_s": told("expected_p95_s"),
            "expected_from": lambda wildcards: self.expected_from(rule, wildcards),
            "output_mb": told("output_mb"),
            "output_files": told("output_files"),
        }
        if rule in ("pretrain", RANKS):
            found["scratch_mb"] = told("scratch_mb")
        if self.whole and rule in MANY:
            found = {name: self._simplest(rule, name, value) for name, value in found.items()}
        return found | (self._ranks() if rule == RANKS else {})

    def _simplest(self, rule: str, name: str, value: Any) -> Any:
        """A number in place of a function that has one value: Snakemake takes its time for each call of each job."""
        attempts = name in ("mem_mb", "runtime")
        if not callable(value) or (attempts and self.site is not None):
            return value
        values = {value(w, 1) if attempts else value(w) for w in self._wildcards(rule)}
        return values.pop() if len(values) == 1 else value

    def retries(self, rule: str) -> int | None:
        """The `retries:` of a rule; None where the profile's number is enough."""
        if self.site is None or rule not in CONTINUES or not self.whole:
            return None
        return count_retries(self.site, rule, self._all(rule))

    # -- told ----------------------------------------------------------------------------------------------------------
    def estimate(self, rule: str, wildcards: Any) -> Estimate:
        """The estimate for one job."""
        found = [getattr(wildcards, name, "") for name in ("encoder", "recipe", "dataset")]
        encoder, recipe, dataset = found
        # Weights from outside are of no data set; their wildcard says `all`.
        rule = SAME_WORK.get(rule, rule)
        return self.model.of(rule, encoder, recipe, "" if dataset == "all" else dataset)

    @staticmethod
    def expected_s(of: Estimate) -> int:
        """Whole seconds; 0 where unknown."""
        return max(1, round(of.seconds)) if of.known else 0

    @staticmethod
    def expected_p95_s(of: Estimate) -> int:
        """Whole seconds that 95 of 100 jobs stay below; 0 where unknown."""
        return math.ceil(of.p95)

    def expected_from(self, rule: str, wildcards: Any) -> str:
        """Where the number comes from.

        Members of a group must agree in every resource that is text (Snakemake): where jobs are packed, fine-tuning
        jobs all say the weakest source among them.
        """
        if self._pack(rule) > 1:
            return self._weakest
        return self.estimate(rule, wildcards).source

    @staticmethod
    def output_mb(of: Estimate) -> int:
        """Disk, MB."""
        return of.output_mb

    @staticmethod
    def output_files(of: Estimate) -> int:
        """Inodes."""
        return of.output_files

    @staticmethod
    def scratch_mb(of: Estimate) -> int:
        """Disk that it holds while it runs, MB: its checkpoints."""
        return of.scratch_mb

    # -- asked for -----------------------------------------------------------------------------------------------------
    def runtime(self, rule: str, wildcards: Any, attempt: int = 1) -> int:
        """Minutes; at most the partition's limit, since a job above it waits for ever.

        Members of a pack ask for their share of it: Snakemake adds their times up, so that none needs spare time of
        its own, and a job of many does not wait for a long gap in the queue.
        """
        kind, pack = RULES[rule], self._pack(rule)
        of = self.estimate(rule, wildcards)
        wanted = UNKNOWN_MIN[kind] if not of.known else START_MIN / pack + FACTOR * of.p95 / 60
        wanted = max(wanted, LEAST_MIN[kind] / pack, self._wish(kind, "min_runtime") / pack)
        wanted *= self._growth(rule, wildcards, attempt)[0]
        return self._capped(kind, "max_runtime", wanted, pack)

    def mem_mb(self, rule: str, wildcards: Any, attempt: int = 1) -> int:
        """MB; at most what a node of the partition has."""
        kind = RULES[rule]
        wanted = max(self.estimate(rule, wildcards).mem_mb, self._wish(kind, "min_mem_mb"))
        if rule == RANKS:  # memory is asked for by node, and each has several processes
            ranks = self._n_ranks(wildcards)
            wanted *= -(-ranks // nodes_of(ranks, self.site))
        return self._capped(kind, "max_mem_mb", wanted * self._growth(rule, wildcards, attempt)[1])

    def _gpu(self, rule: str) -> int | Callable[[Any], int]:
        """GPUs: one, or one for each rank of a pretraining."""
        if rule == RANKS:
            return self._n_ranks
        return 1 if RULES[rule] == "gpu" else 0

    def _ranks(self) -> dict[str, Any]:
        """How tasks are asked for, where each is a rank: the very presence of `mpi` leaves their start to the job."""
        return {
            "mpi": "srun",
            "nodes": lambda wildcards: nodes_of(self._n_ranks(wildcards), self.site),
            "tasks": self._n_ranks,
            "tasks_per_gpu": 1,
            "cpus_per_task": self.plan.config.compute.threads,
        }

    def _n_ranks(self, wildcards: Any) -> int:
        return int(self.plan.encoders[wildcards.encoder].settings.ranks)  # type: ignore[attr-defined]

    def _growth(self, rule: str, wildcards: Any, attempt: int) -> tuple[float, float]:
        """Factors for time and memory: more only after a recorded time-out or out-of-memory."""
        if attempt <= 1:
            return 1.0, 1.0
        from fewscans.cluster.outcome import growth

        return growth(rule, wildcards, attempt)

    def _wish(self, kind: Kind, name: str) -> int:
        return 0 if self.site is None else getattr(self.site.job_class(kind), name) or 0

    def _pack(self, rule: str) -> int:
        """Jobs of this rule that share a submission."""
        return self.site.pack if rule == "finetune" and self.site is not None else 1

    def _capped(self, kind: Kind, name: str, wanted: float, pack: int = 1) -> int:
        partition: Partition | None = self.site.partition(kind) if self.site is not None else None
        limit = getattr(partition, name, None)
        return max(1, min(math.ceil(wanted), limit // pack) if limit else math.ceil(wanted))

    # -- all jobs of a rule --------------------------------------------------------------------------------------------
    def _wildcards(self, rule: str) -> Iterator[SimpleNamespace]:
        """Wildcards of every kind of job of a rule."""
        pairs = self.plan.pairs
        if rule in ("pretrain", RANKS):
            pairs = [pair for pair in pairs if self.plan.encoders[pair[0]].pretrained]
        for dataset in self.plan.evaluated:
            for encoder, recipe in pairs:
                yield SimpleNamespace(encoder=encoder, recipe=recipe, dataset=dataset)

    def _all(self, rule: str) -> Iterator[Estimate]:
        return (self.estimate(rule, wildcards) for wildcards in self._wildcards(rule))

    @cached_property
    def _weakest(self) -> str:
        sources = [one.source for one in self._all("finetune")]
        numbers = [int(s.partition(":")[2]) for s in sources if s.startswith("measured:")]
        known = f"measured:{min(numbers)}" if numbers else "unknown"
        return next((source for source in WORST if source in sources), known)
