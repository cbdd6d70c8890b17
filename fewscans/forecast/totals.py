"""The plan as plain values: rules, totals, wall times, disk. The same jobs and settings give the same bytes.

Units stand in the names. What depends on the hour (free space) stands under ``now`` alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from fewscans.forecast import disk
from fewscans.forecast.advice import advise
from fewscans.forecast.fit import misfits
from fewscans.forecast.jobs import Job
from fewscans.forecast.place import Place
from fewscans.forecast.rates import PlanSettings, money_and_co2
from fewscans.forecast.schedule import Machine, Schedule, critical_path, run

SCHEMA_VERSION = 1
# Rules in the order of the work; others follow by name.
ORDER = [
    *("weights", "phantom", "convert", "export", "audit", "audit_page", "normalise", "folds"),
    *("normalise_fold", "budgets", "tune", "pretrain", "pretrain_ranks", "finetune", "plan"),
    *("aggregate", "learns", "report", "shareable"),
]


def build(
    jobs: Sequence[Job], place: Place, settings: PlanSettings, gpus: int | None = None
) -> dict[str, Any]:
    """The plan for `jobs` at `place`; `gpus` adds a wall time with so many."""
    here = schedule_here(jobs, place)
    rules = [_rule(name, found, place) for name, found in _by_rule(jobs)]
    totals = _totals(jobs, rules, place, here, settings)
    space = disk.by_kind(jobs, here, place)
    walls = [
        _wall(jobs, place, kind, count, machine)
        for kind, count, machine in place.machines(jobs, gpus)
    ]
    plan: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "place": _place(place),
        "rules": rules,
        "up_to_date": place.facts.up_to_date,
        "totals": totals,
        "wall_times": walls,
        "critical_path": _critical(jobs, place),
        "disk": space,
        "worst_case": _worst(jobs, place),
        "now": disk.free(jobs, place.facts.directory, space["peak_mb"] - space["total_mb"]),
    }
    plan["over_budget"] = over_budget(plan, settings)
    plan["problems"] = misfits(jobs, place, plan)
    plan["advice"] = advise(plan, place)
    return _rounded(plan)


def schedule_here(jobs: Sequence[Job], place: Place, gpus: int | None = None) -> Schedule:
    """The schedule at `place` as it is, or with `gpus` cards; as if there were enough where there are too few."""
    with_cards = True if gpus else None
    tasks = place.tasks(jobs, cards=with_cards)
    machine = place.machine(gpus=gpus or place.cards(jobs) or None)
    found = run(tasks, machine)
    if found is None:
        found = run(
            tasks, Machine(machine.cores, None, machine.slots, machine.burst, machine.notice_s)
        )
    assert found is not None  # without a bound on GPUs everything can run
    return found


def _by_rule(jobs: Iterable[Job]) -> list[tuple[str, list[Job]]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.rule].append(job)
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(found.items(), key=lambda pair: (rank.get(pair[0], len(rank)), pair[0]))


def span(values: Iterable[float | None]) -> list[float] | None:
    """[least, most] of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None


def _rule(name: str, jobs: list[Job], place: Place) -> dict[str, Any]:
    usual = [job.expected_s for job in jobs if job.expected_s is not None]
    slow = [job.expected_p95_s for job in jobs if job.expected_p95_s is not None]
    units = place.units(jobs)
    hours = [(place.seconds(job) / 3600, *place.billed(job)) for job in jobs]
    hours += [(place.per_job_s / 3600, *place.billed(jobs[unit[0]])) for unit in units]
    measured = [int(j.estimate.partition(":")[2] or 0) for j in jobs if "measured" in j.estimate]
    return {
        "rule": name,
        "class": place.kind(jobs[0]),
        "jobs": len(jobs),
        "submissions": len(units),
        "reasons": dict(sorted(Counter(job.reason for job in jobs).items())),
        "partitions": sorted({place.partition_name(job) or "" for job in jobs} - {""}),
        "cpus": span(job.cpus for job in jobs),
        "gpus": span(job.gpus for job in jobs),
        "gpu_models": sorted({job.gpu_model for job in jobs if job.gpu_model}),
        "mem_mb": span(job.mem_mb for job in jobs),
        "time_limit_min": span(job.runtime_min for job in jobs),
        "expected_p50_s": median(usual) if usual else None,
        "expected_p95_s": max(slow) if slow else None,
        "expected_sum_s": sum(usual),
        "estimates": dict(sorted(Counter(job.estimate.partition(":")[0] for job in jobs).items())),
        "measured_runs": max(measured, default=0),
        "jobs_of_unknown_length": sum(job.expected_s is None for job in jobs),
        "gpu_hours": sum(seconds * gpus for seconds, _, gpus in hours)
        + sum(job.inner_gpu_s for job in jobs) / 3600,
        "cpu_hours": sum(seconds * cpus for seconds, cpus, _ in hours),
        "output_mb": sum(job.output_mb or 0.0 for job in jobs),
        "output_files": sum(job.output_files or 0 for job in jobs),
        "jobs_of_unknown_size": sum(job.output_mb is None for job in jobs),
    }


def _totals(
    jobs: Sequence[Job],
    rules: list[dict[str, Any]],
    place: Place,
    here: Schedule,
    settings: PlanSettings,
) -> dict[str, Any]:
    gpu_hours = sum(rule["gpu_hours"] for rule in rules)
    cpu_hours = sum(rule["cpu_hours"] for rule in rules)
    up_to_date = place.facts.up_to_date
    slow = run(place.tasks(jobs, slow=True), place.machine(gpus=place.cards(jobs) or None))
    begin = place.start_s if jobs else 0.0
    return {
        "jobs": len(jobs),
        "jobs_up_to_date": None if up_to_date is None else sum(up_to_date.values()),
        "submissions": len(place.units(jobs)) if place.cluster else 0,
        "jobs_of_unknown_length": sum(rule["jobs_of_unknown_length"] for rule in rules),
        "gpu_hours": gpu_hours,
        "cpu_hours": cpu_hours,
        "start_up_hours": len(place.units(jobs)) * place.per_job_s / 3600,
        "wall_s": begin + here.seconds,
        "wall_p95_s": None if slow is None else begin + slow.seconds,
        "peak_jobs": here.peak_jobs,
        "peak_cpus": here.peak_cpus,
        "peak_gpus": here.peak_gpus,
        "currency": settings.rates.currency,
        **money_and_co2(settings.rates, gpu_hours, cpu_hours),
    }


def _wall(
    jobs: Sequence[Job], place: Place, kind: str, count: int, machine: Machine
) -> dict[str, Any]:
    """Wall time on a machine; None where a job asks for more than there is."""
    found = run(place.tasks(jobs, cards=True if kind == "gpus" else None), machine)
    return {
        "kind": kind,
        "count": count,
        "wall_s": None if found is None else place.start_s + found.seconds,
    }


def _critical(jobs: Sequence[Job], place: Place) -> dict[str, Any]:
    tasks, units = place.tasks(jobs), place.units(jobs)
    chain = critical_path(tasks, place.notice_s)
    rules = [jobs[units[unit][0]].rule for unit in chain]
    work = sum((jobs[j].expected_s or 0.0) for unit in chain for j in units[unit])
    seconds = sum(tasks[unit].seconds for unit in chain)
    longest = max(chain, key=lambda unit: tasks[unit].seconds, default=None)
    return {
        "rules": rules,
        "longest_rule": None if longest is None else jobs[units[longest][0]].rule,
        "longest_s": 0.0 if longest is None else tasks[longest].seconds,
        "wall_s": (place.start_s if jobs else 0.0) + seconds + place.notice_s * len(chain),
        "work_s": work,
        "start_up_s": seconds - work,
        "notice_s": place.notice_s * len(chain),
    }


def _worst(jobs: Sequence[Job], place: Place) -> dict[str, Any]:
    """Every job uses its whole limit, fails, and is tried again to the last."""
    tries = 1 + place.facts.retries
    bounded = [
        (job.runtime_min / 60 * tries, *place.billed(job)) for job in jobs if job.runtime_min
    ]
    return {
        "tries": tries,
        "gpu_hours": sum(hours * gpus for hours, _, gpus in bounded),
        "cpu_hours": sum(hours * cpus for hours, cpus, _ in bounded),
        "jobs_without_limit": len(jobs) - len(bounded),
    }


def _place(place: Place) -> dict[str, Any]:
    facts, site = place.facts, place.site
    return {
        "cluster": place.cluster,
        "name": site.cluster.name if site else "",
        "cores": facts.cores,
        "gpus": None if place.cluster else facts.gpus,
        "most_jobs_in_flight": facts.slots,
        "submissions_per_s": facts.burst[0] / facts.burst[1] if facts.burst else None,
        "tries": 1 + facts.retries,
        "exclusive_nodes": bool(site and site.exclusive_nodes),
        "terms": place.terms.model_dump(),
    }


def over_budget(plan: dict[str, Any], settings: PlanSettings) -> list[dict[str, Any]]:
    """What exceeds the budget: (what, planned, budget)."""
    totals = plan["totals"]
    planned = {
        "gpu_hours": totals["gpu_hours"],
        "cpu_hours": totals["cpu_hours"],
        "wall_hours": totals["wall_s"] / 3600,
        "money": totals["money"],
        "co2_kg": totals["co2_kg"],
        "disk_gb": plan["disk"]["peak_mb"] / 1000,
    }
    return [
        {"what": what, "planned": planned[what], "budget": bound}
        for what, bound in settings.budget.model_dump().items()
        if bound is not None and (planned[what] or 0.0) > bound
    ]


def _rounded(value: Any) -> Any:
    """Floats with six digits after the point: the same bytes on any machine."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
