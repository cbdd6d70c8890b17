"""What a job takes at a place: a machine of its own, or a cluster described by its site file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewscans.cluster.site import Kind, Partition, Site
from fewscans.forecast.context import Facts
from fewscans.forecast.jobs import Job
from fewscans.forecast.rates import Terms
from fewscans.forecast.schedule import Machine, Task
from fewscans.plan import RULES

# Jobs of these rules share submissions where the site says so.
PACKED = frozenset({"finetune"})
COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Place:
    """A machine or a cluster, and what jobs cost there besides their work."""

    facts: Facts
    site: Site | None
    terms: Terms

    @property
    def cluster(self) -> bool:
        """Whether jobs are submitted."""
        return self.facts.cluster

    @property
    def has_cards(self) -> bool:
        """Whether jobs that want a GPU get one; else they take the CPU."""
        return self.cluster or bool(self.facts.gpus)

    @property
    def start_s(self) -> float:
        """Before the first job."""
        return self.terms.cluster_start_s if self.cluster else self.terms.local_start_s

    @property
    def per_job_s(self) -> float:
        """Per submission (cluster) or job, held by the job's resources."""
        return self.terms.in_job_s if self.cluster else self.terms.local_job_s

    @property
    def notice_s(self) -> float:
        """From the end of a job until Snakemake knows."""
        return self.terms.notice_s if self.cluster else 0.0

    def pack(self, rule: str) -> int:
        """Jobs of a rule in one submission."""
        return self.site.pack if self.cluster and self.site and rule in PACKED else 1

    def kind(self, job: Job) -> Kind:
        """Class of a job."""
        return "gpu" if job.gpus else RULES.get(job.rule, "cpu")

    def partition_name(self, job: Job) -> str | None:
        """Where a job goes: as submitted, else as the site says; None: the cluster's default, not known."""
        if job.partition or self.site is None:
            return job.partition
        return self.site.job_class(self.kind(job)).partition or self.site.default_partition

    def partition(self, job: Job) -> Partition | None:
        """Limits that a job meets; None where nothing is known."""
        name = self.partition_name(job)
        return None if self.site is None or name is None else self.site.partitions.get(name)

    def cards(self, jobs: Iterable[Job]) -> int | None:
        """GPUs that `jobs` can have at once; None: not known."""
        if not self.cluster:
            return self.facts.gpus
        used = {self.partition_name(job) for job in jobs if job.gpus}
        known = [self.site.partitions.get(name or "") for name in used] if self.site else []
        if not known or not all(known):
            return None
        return sum(p.total_gpu for p in known if p) or None

    def billed(self, job: Job) -> tuple[int, int]:
        """(CPUs, GPUs) that a job is charged for while it runs: whole nodes where the site says so."""
        gpus = job.gpus if self.has_cards else 0
        where = self.partition(job)
        if self.site is None or not self.site.exclusive_nodes or where is None:
            return job.cpus, gpus
        return (
            max(job.cpus, (where.max_threads or job.cpus) * job.nodes),
            max(gpus, where.max_gpu * job.nodes),
        )

    @staticmethod
    def seconds(job: Job, slow: bool = False) -> float:
        """Work of a job; nothing where its length is not known."""
        return (job.expected_p95_s if slow else job.expected_s) or 0.0

    def units(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Places of the jobs of each submission, in order."""
        found: list[list[int]] = []
        open_: dict[tuple[str, str | None], list[int]] = {}
        for place, job in enumerate(jobs):
            size = self.pack(job.rule)
            key = (job.rule, self.partition_name(job))
            if size > 1 and len(open_.get(key, ())) % size:
                open_[key].append(place)
                continue
            open_[key] = [place]
            found.append(open_[key])
        return found

    def tasks(
        self, jobs: Sequence[Job], slow: bool = False, cards: bool | None = None
    ) -> list[Task]:
        """What is scheduled: submissions, whose members run one after the other."""
        units = self.units(jobs)
        unit_of = {place: number for number, places in enumerate(units) for place in places}
        with_cards = self.has_cards if cards is None else cards
        made = []
        for number, places in enumerate(units):
            before = {unit_of[b] for place in places for b in jobs[place].after} - {number}
            made.append(
                Task(
                    self.per_job_s + sum(self.seconds(jobs[place], slow) for place in places),
                    max(jobs[place].cpus for place in places),
                    max(jobs[place].gpus for place in places) if with_cards else 0,
                    tuple(sorted(before)),
                )
            )
        return made

    def machine(self, *, gpus: int | None = None, cores: int | None = None) -> Machine:
        """The place with so many GPUs and cores; None: those there are."""
        here = self.facts
        if self.cluster:
            return Machine(cores, gpus, here.slots, here.burst, self.notice_s)
        return Machine(cores or here.cores, gpus if gpus is not None else here.gpus or None)

    def machines(self, jobs: Sequence[Job], further: int | None) -> list[tuple[str, int, Machine]]:
        """(kind, count, machine) whose wall times are compared: by GPUs, or by cores where there are no GPUs."""
        if not self.has_cards and further is None:
            counts = sorted({*COUNTS, *([self.facts.cores] if self.facts.cores else [])})
            return [("cores", count, self.machine(cores=count)) for count in counts]
        if not any(job.gpus for job in jobs):
            return []
        cards = self.cards(jobs)
        counts = sorted({*COUNTS, *([cards] if cards else []), *([further] if further else [])})
        return [("gpus", count, self.machine(gpus=count)) for count in counts]
