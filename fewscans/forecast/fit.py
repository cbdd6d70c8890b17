"""What will not fit: found before anything is submitted, said in words.

A cluster accepts a job that no node can ever run, and lets it wait for ever; here it is a problem.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fewscans.cluster.site import Partition
from fewscans.cost.retries import CONTINUES, starts
from fewscans.forecast.jobs import Job
from fewscans.forecast.place import Place
from fewscans.forecast.words import amount, count, duration, size

# Requests that no node can meet: the cluster refuses such a job, or lets it wait for ever.
IMPOSSIBLE = frozenset({"time", "cores", "memory", "nodes", "gpus", "model"})
# (kind, whether it stops the run, words)
Misfit = tuple[str, bool, str]


def misfits(jobs: Sequence[Job], place: Place, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Problems, the stopping ones first; jobs of a rule with the same problem are counted."""
    found: Counter[tuple[bool, str, str, str]] = Counter()
    for job in jobs:
        for kind, stops, text in _of_job(job, place):
            found[(not stops, job.rule, kind, text)] += 1
    problems = [
        {
            "rule": rule,
            "kind": kind,
            "jobs": n,
            "stops": not later,
            "waits_for_ever": place.cluster and not later and kind in IMPOSSIBLE,
            "text": text,
        }
        for (later, rule, kind, text), n in sorted(found.items())
    ]
    return [*problems, *_of_run(place, plan)]


def _of_job(job: Job, place: Place) -> Iterator[Misfit]:
    yield from _of_time(job, place)
    if not place.cluster:
        yield from _on_this_machine(job, place)
        return
    name = place.partition_name(job)
    if place.site is not None and place.site.partitions and name and place.partition(job) is None:
        known = ", ".join(place.site.partitions)
        yield (
            "partition",
            True,
            f"goes to partition '{name}', which is not in the site file. Known: {known}",
        )
    if (where := place.partition(job)) is not None:
        yield from _in_partition(job, name or "", where, place.pack(job.rule))


def _of_time(job: Job, place: Place) -> Iterator[Misfit]:
    if job.runtime_min is None or not place.cluster:
        return
    limit, in_job = job.runtime_min * 60, place.terms.in_job_s
    asked = f"asks for {duration(limit)}"
    if job.expected_s is not None and job.expected_s + in_job > limit:
        if job.rule in CONTINUES:
            times = max(2, starts(job.expected_s, job.runtime_min))
            say = f"{asked} and needs about {duration(job.expected_s)}: it will be continued, {times} starts"
            yield "length", False, say
        else:
            yield (
                "length",
                True,
                f"{asked} and needs about {duration(job.expected_s)}: it would be killed",
            )
    elif job.expected_p95_s is not None and job.expected_p95_s + in_job > limit:
        yield "length", False, f"{asked}; one in twenty may need {duration(job.expected_p95_s)}"


def _in_partition(job: Job, name: str, where: Partition, pack: int) -> Iterator[Misfit]:
    """Limits of a partition that a request exceeds; such a job waits for ever."""
    if job.runtime_min and where.max_runtime and job.runtime_min > where.max_runtime:
        most = duration(where.max_runtime * 60)
        yield (
            "time",
            True,
            f"asks for {duration(job.runtime_min * 60)}; partition {name} allows {most}",
        )
    per_node = -(-job.cpus // job.nodes)
    together = (job.runtime_min or 0) * pack
    if pack > 1 and where.max_runtime and together > where.max_runtime >= (job.runtime_min or 0):
        asked, most = duration(together * 60), duration(where.max_runtime * 60)
        yield (
            "time",
            True,
            f"{pack} packed together ask for {asked}; partition {name} allows {most}",
        )
    if where.max_threads and per_node > where.max_threads:
        yield (
            "cores",
            True,
            f"asks for {per_node} cores on a node; nodes of {name} have {where.max_threads}",
        )
    if job.mem_mb and where.max_mem_mb and job.mem_mb > where.max_mem_mb:
        yield (
            "memory",
            True,
            f"asks for {size(job.mem_mb)} of memory; nodes of {name} have {size(where.max_mem_mb)}",
        )
    if job.nodes > where.nodes:
        yield (
            "nodes",
            True,
            f"asks for {job.nodes} nodes; {name} has {count(where.nodes, 'node')}",
        )
    if job.gpus:
        yield from _gpus_in_partition(job, name, where)


def _gpus_in_partition(job: Job, name: str, where: Partition) -> Iterator[Misfit]:
    per_node = -(-job.gpus // job.nodes)
    if where.max_gpu == 0:
        yield (
            "gpus",
            True,
            f"asks for {count(job.gpus, 'GPU')}; partition {name} has none. Set classes.gpu.partition in the site file",
        )
    elif per_node > where.max_gpu:
        yield (
            "gpus",
            True,
            f"asks for {count(per_node, 'GPU')} on a node; nodes of {name} have {where.max_gpu}",
        )
    if job.gpu_model and where.gpu_models and job.gpu_model not in where.gpu_models:
        known = ", ".join(where.gpu_models)
        yield (
            "model",
            True,
            f"asks for GPU model '{job.gpu_model}'; partition {name} has {known}",
        )
    if job.gpu_model is None and len(where.gpu_models) > 1:
        known = ", ".join(where.gpu_models)
        yield (
            "model",
            False,
            f"may get any of {known} in {name}: set classes.gpu.gpu_model in the site file",
        )


def memory_mb() -> float | None:
    """Memory of this machine; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError, AttributeError):
        return None


def _on_this_machine(job: Job, place: Place) -> Iterator[Misfit]:
    facts, memory = place.facts, memory_mb()
    if facts.gpus and job.gpus > facts.gpus:
        yield (
            "gpus",
            True,
            f"asks for {count(job.gpus, 'GPU')}; this machine has {facts.gpus}",
        )
    if facts.cores and job.cpus > facts.cores:
        yield (
            "cores",
            False,
            f"asks for {job.cpus} cores and gets the {facts.cores} there are; other threads round differently",
        )
    if memory and job.mem_mb and job.mem_mb > memory:
        yield (
            "memory",
            False,
            f"may need {size(job.mem_mb)} of memory; this machine has {size(memory)}",
        )


def _whole(kind: str, stops: bool, text: str) -> dict[str, Any]:
    """A problem of the whole run, not of one rule."""
    shared = {"rule": "", "jobs": 0, "waits_for_ever": False}
    return {**shared, "kind": kind, "stops": stops, "text": text}


def _of_run(place: Place, plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What no single job exceeds: free space, files, length of the queue."""
    for system in plan["now"]:
        if system["needed_mb"] > system["free_mb"]:
            text = (
                f"the run takes {size(system['needed_mb'])} below {system['folder']}; "
                f"{size(system['free_mb'])} are free there"
            )
            yield _whole("space", True, text)
        if system["free_files"] is not None and system["needed_files"] > system["free_files"]:
            text = (
                f"{amount(system['needed_files'])} files are written below {system['folder']}; "
                f"the file system takes {amount(system['free_files'])} more"
            )
            yield _whole("files", True, text)
    most = place.site.cluster.max_submit_jobs if place.site else None
    slots = place.facts.slots
    if place.cluster and most and slots and slots > most:
        text = f"jobs: {slots} in the profile; this cluster queues {most} of one user. Set jobs: {most} or less"
        yield _whole("queue", False, text)
