"""What contradicts itself: a site file, the settings of a run, what jobs ask for. No Slurm command runs here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fewscans.cluster.profile import LONGEST_LOOK_S
from fewscans.cluster.site import JobClass, Kind, Partition, Site
from fewscans.errors import Problems, did_you_mean

# Versions that were tried: from the first, before the second.
VERSIONS = {
    "snakemake": ((9, 20), (10,)),
    "snakemake-executor-plugin-slurm": ((2, 6), (3,)),
}
# What the executor sets itself, by resources of its own.
TAKEN = [
    *("--job-name", "-J", "--output", "-o", "--error", "-e", "--parsable", "--export", "--comment"),
    *("--workdir", "-D", "--account", "-A", "--partition", "-p", "--mem", "--mem-per-cpu"),
    *(
        "--ntasks",
        "-n",
        "--ntasks-per-gpu",
        "--cpus-per-task",
        "-c",
        "--cpus-per-gpu",
        "--time",
        "-t",
    ),
    *("--constraint", "-C", "--qos", "--nodes", "-N", "--clusters", "--gres", "--gpus"),
]


def check_versions(problems: Problems) -> None:
    """Whether Snakemake and its executor are versions whose ways are known."""
    for name, (first, before) in VERSIONS.items():
        span = f">={'.'.join(map(str, first))},<{'.'.join(map(str, before))}"
        try:
            found = version(name)
        except PackageNotFoundError:
            problems.add(name, f"is not installed. pip install '{name}{span}'")
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
        if not first <= numbers < before:
            problems.add(
                name, f"is version {found}, which was not tried. pip install '{name}{span}'"
            )


def check_site(site: Site, problems: Problems) -> None:
    """What the file says against itself."""
    if site.gpu_request == "none" and site.job_class("gpu").gpu_model:
        problems.add(
            "classes.gpu.gpu_model", "contradicts gpu_request: none. Take one of them out."
        )
    kinds: tuple[Kind, ...] = ("light", "cpu", "gpu")
    for kind in kinds:
        wishes, place = site.job_class(kind), f"classes.{kind}"
        _check_extra(wishes, place, problems)
        if not site.partitions:
            continue
        name, partition = wishes.partition, site.partition(kind)
        if name and partition is None:
            problems.add(
                f"{place}.partition",
                f"'{name}' is no partition.{did_you_mean(name, site.partitions)}",
            )
        elif partition is None:
            problems.add(f"{place}.partition", "the cluster has no default partition: name one.")
        else:
            label = name or "the default partition"
            _check_fits(wishes, partition, place, label, problems)
            if kind == "gpu" and site.gpu_request != "none":
                _check_gpu(site, wishes, partition, label, problems)


def check_profile(settings: Mapping[str, Any], site: Site, problems: Problems) -> None:
    """Settings that make Snakemake wait for ever, each seen on a real cluster or in the executor's source."""
    facts = site.cluster
    if settings.get("slurm-array-jobs"):
        problems.add(
            "slurm-array-jobs",
            "all tasks get the first job's time and memory, and with fewer `jobs` than there are ready ones nothing is "
            "ever submitted. Leave it out; `pack` in partitions.yaml makes fewer submissions.",
        )
    status = settings.get("slurm-status-command")
    look_s = settings.get("slurm-init-seconds-before-status-checks") or 40
    needed = max(3 * look_s, LONGEST_LOOK_S + 20)
    known = bool(facts.name)
    if status == "sacct" and known and not facts.accounting:
        problems.add(
            "slurm-status-command",
            "sacct, but this cluster keeps no accounts: the end of a job would never be noticed. Take squeue "
            "(fewscans cluster-setup writes it down).",
        )
    if status == "squeue" and known and facts.min_job_age_s < needed:
        hint = (
            "Take sacct."
            if facts.accounting
            else "Ask the administrators for MinJobAge=300 or slurmdbd."
        )
        problems.add(
            "slurm-status-command",
            f"squeue, but this cluster forgets a finished job after {facts.min_job_age_s} s (MinJobAge) and Snakemake "
            f"looks every {LONGEST_LOOK_S} s at times (needed: {needed} s): it would wait for ever. {hint}",
        )
    if settings.get("slurm-requeue", True) is False:
        for kind in ("gpu", "cpu", "light"):
            partition = site.partition(kind)  # type: ignore[arg-type]
            if partition is not None and partition.preempt == "requeue":
                problems.add(
                    "slurm-requeue",
                    f"is off, and jobs of class {kind} can be preempted: Snakemake would wait for ever for "
                    "one that was. Set it to true.",
                )
                break
    jobs = settings.get("jobs")
    limit = facts.max_submit_jobs
    if isinstance(jobs, int) and limit is not None and jobs > limit:
        problems.add(
            "jobs", f"{jobs}, but you may have {limit} in the queue. Ask for --jobs {limit}."
        )


def check_jobs(jobs: Iterable[Any], site: Site, problems: Problems) -> None:
    """Jobs that ask for more than their partition has would wait in the queue for ever."""
    worst: dict[tuple[str, str, str], tuple[int, int]] = {}
    for job in jobs:
        if job.is_local:
            continue
        resources = job.resources
        name = resources.get("slurm_partition")
        partition = site.partitions.get(str(name or site.default_partition or ""))
        if partition is None:
            if name and site.partitions:
                problems.add(
                    f"rule {job.rule.name}",
                    f"'{name}' is no partition.{did_you_mean(str(name), site.partitions)}",
                )
            continue
        label = str(name or "the default partition")
        nodes = _integer(resources.get("nodes")) or 1
        for key, limit, per in (
            ("runtime", partition.max_runtime, 1),
            ("mem_mb", partition.max_mem_mb, 1),
            ("gpu", partition.max_gpu if site.gpu_request != "none" else None, nodes),
            ("threads", partition.max_threads, 1),
        ):
            asked = job.threads if key == "threads" else _integer(resources.get(key))
            if asked and limit is not None and asked > limit * per:
                at = job.rule.name, key, label
                worst[at] = max(asked, worst.get(at, (0, 0))[0]), limit * per
    words = {
        "runtime": ("minutes", "the longest job there has"),
        "mem_mb": ("MB of memory", "no node there has more than"),
        "gpu": ("GPUs", "a job there can have"),
        "threads": ("CPUs", "no node there has more than"),
    }
    for (rule, key, label), (asked, limit) in sorted(worst.items()):
        unit, has = words[key]
        problems.add(f"rule {rule}", f"asks for {asked} {unit} in {label}, and {has} {limit}.")


def _check_fits(
    wishes: JobClass, partition: Partition, place: str, label: str, problems: Problems
) -> None:
    if wishes.min_runtime and partition.max_runtime and wishes.min_runtime > partition.max_runtime:
        problems.add(
            f"{place}.min_runtime",
            f"{wishes.min_runtime} minutes, and jobs in {label} have at most {partition.max_runtime}.",
        )
    if wishes.min_mem_mb and partition.max_mem_mb and wishes.min_mem_mb > partition.max_mem_mb:
        problems.add(
            f"{place}.min_mem_mb",
            f"{wishes.min_mem_mb} MB, and no node of {label} has more than {partition.max_mem_mb}.",
        )


def _check_gpu(
    site: Site, wishes: JobClass, partition: Partition, label: str, problems: Problems
) -> None:
    model = wishes.gpu_model
    if not partition.max_gpu:
        having = [name for name, one in site.partitions.items() if one.max_gpu]
        way = (
            f"These have: {', '.join(having)}."
            if having
            else "No partition has. gpu_request: none trains on CPUs."
        )
        problems.add("classes.gpu.partition", f"{label} has no GPUs. {way}")
    elif model and not re.fullmatch(r"[A-Za-z0-9_.]+", model):
        problems.add(
            "classes.gpu.gpu_model",
            f"'{model}': Snakemake's executor takes letters, digits, _ and . only. "
            "Choose nodes by `constraint` instead.",
        )
    elif model and partition.gpu_models and model not in partition.gpu_models:
        problems.add(
            "classes.gpu.gpu_model",
            f"'{model}' is not in {label}.{did_you_mean(model, partition.gpu_models)}",
        )
    elif not model and len(partition.gpu_models) > 1 and not wishes.constraint:
        problems.add(
            "classes.gpu.gpu_model",
            f"{label} has several: {', '.join(partition.gpu_models)}. Name one: scores and times depend on it.",
        )


def _check_extra(wishes: JobClass, place: str, problems: Problems) -> None:
    try:
        words = [word.partition("=")[0] for word in shlex.split(wishes.extra)]
    except ValueError as error:
        problems.add(f"{place}.extra", f"{error} in: {wishes.extra}")
        return
    for word in words:
        if word in TAKEN:
            problems.add(
                f"{place}.extra",
                f"{word} is set from the rule's resources or another setting here.",
            )


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
