"""After a run: what was asked for, what was expected, what was used, by rule.

Requests and expectations are those of the run (``WORK/runs/jobs.jsonl``, written by the logger plugin); use comes from
the jobs' benchmark files, and on a cluster with accounting from ``sacct``, which counts the start-up too.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fewscans.errors import UserError
from fewscans.forecast.jobs import number
from fewscans.forecast.record import PLACE
from fewscans.forecast.text import table
from fewscans.forecast.words import amount, duration, size

UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def read_record(work: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Each job as it ran last, by name. Lines cut short by a kill are passed over.

    Raises
    ------
    UserError
        Nothing has been recorded.
    """
    path = Path(work, *PLACE)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise UserError(
            f"{path}: not there, so no run has been recorded. A run with a profile of ours writes it."
        ) from None
    last: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            job = json.loads(line)
            last[job["name"]] = job
        except (ValueError, KeyError, TypeError):
            continue
    return [last[name] for name in sorted(last)]


def benchmark(path: str | os.PathLike[str] | None) -> dict[str, float | None]:
    """Seconds and memory of a benchmark file; None where it does not say."""
    try:
        with open(path or "", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError:
        rows = []
    row = rows[-1] if rows else {}
    memory = number(row.get("max_rss"))
    return {
        "used_s": number(row.get("s")),
        # Memory is sampled; a job between two samples shows none.
        "used_mb": memory if memory else None,
    }


def sacct(ids: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Seconds and memory of Slurm jobs, where there is accounting; empty where not."""
    from fewscans.cluster.slurm import SlurmError, available, run

    found: dict[str, dict[str, float | None]] = {}
    if not ids or not available("sacct"):
        return found
    for first in range(0, len(ids), 500):
        some = ",".join(ids[first : first + 500])
        try:
            text = run(["sacct", "-n", "-P", "-j", some, "-o", "JobID,ElapsedRaw,MaxRSS"])
        except SlurmError:
            return found
        for line in text.splitlines():
            _add_step(found, line)
    return found


def _add_step(found: dict[str, dict[str, float | None]], line: str) -> None:
    """Times stand in the job's line, memory in those of its steps."""
    parts = line.split("|")
    if len(parts) != 3:
        return
    job, _, step = parts[0].partition(".")
    entry = found.setdefault(job, {"elapsed_s": None, "used_mb": None})
    if not step:
        entry["elapsed_s"] = number(parts[1])
    memory = re.fullmatch(r"([\d.]+)([KMGT])?", parts[2])
    if memory:
        mb = float(memory[1]) * (UNITS[memory[2]] if memory[2] else 1 / 1024**2)
        entry["used_mb"] = max(entry["used_mb"] or 0.0, mb)


def compare(
    record: Iterable[Mapping[str, Any]], directory: str | os.PathLike[str]
) -> dict[str, Any]:
    """By rule: asked, expected, used, and the ratio of used to expected. `directory`: where the run took place."""
    jobs = [_with_use(job, directory) for job in record]
    accounts = sacct([job["slurm_id"] for job in jobs if job.get("slurm_id")])
    for job in jobs:
        known = accounts.get(str(job.get("slurm_id")), {})
        job["elapsed_s"] = known.get("elapsed_s")
        job["used_mb"] = max(filter(None, (job["used_mb"], known.get("used_mb"))), default=None)
    by_rule: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        by_rule[job["rule"]].append(job)
    rules = [_rule(name, found) for name, found in sorted(by_rule.items())]
    both = [job for job in jobs if job["used_s"] is not None and job["expected_s"]]
    expected = sum(job["expected_s"] for job in both)
    used = sum(job["used_s"] for job in both)
    return {
        "rules": rules,
        "jobs": len(jobs),
        "jobs_compared": len(both),
        "expected_job_hours": expected / 3600,
        "used_job_hours": used / 3600,
        "used_to_expected": used / expected if expected else None,
        "wall_s": _wall(jobs),
    }


def _with_use(job: Mapping[str, Any], directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The job with what its benchmark file says, else with the time between its events."""
    file = job.get("benchmark")
    found = benchmark(Path(directory, file) if file else None)
    if found["used_s"] is None and not job.get("slurm_id"):
        found["used_s"] = job["ended_unix_s"] - job["started_unix_s"]
    return {**job, **found}


def _wall(jobs: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of the last run, from its start to the end of its last job."""
    began = max((job["run_began_unix_s"] or 0.0 for job in jobs), default=0.0)
    ends = [job["ended_unix_s"] for job in jobs if job["run_began_unix_s"] == began]
    return max(ends) - began if ends and began else None


def _rule(name: str, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def known(key: str) -> list[float]:
        return [job[key] for job in jobs if job.get(key) is not None]

    def most(key: str, factor: float = 1.0) -> float | None:
        return max((factor * value for value in known(key)), default=None)

    pairs = [(j["used_s"], j["expected_s"]) for j in jobs if j["used_s"] and j["expected_s"]]
    return {
        "rule": name,
        "jobs": len(jobs),
        "time_limit_s": most("runtime_min", 60.0),
        "expected_p50_s": median(known("expected_s")) if known("expected_s") else None,
        "used_p50_s": median(known("used_s")) if known("used_s") else None,
        "used_most_s": most("used_s"),
        "elapsed_most_s": most("elapsed_s"),
        "used_to_expected": sum(u for u, _ in pairs) / sum(e for _, e in pairs) if pairs else None,
        "mem_mb": most("mem_mb"),
        "used_mb": most("used_mb"),
    }


def actual_text(found: dict[str, Any]) -> str:
    """The comparison as text."""
    head = ["rule", "jobs", "time asked", "expected", "used", "longest", "used/expected"]
    head += ["memory asked", "used most"]
    rows = [
        [
            rule["rule"],
            f"{rule['jobs']:,}",
            duration(rule["time_limit_s"]),
            duration(rule["expected_p50_s"]),
            duration(rule["used_p50_s"]),
            duration(rule["used_most_s"]),
            amount(rule["used_to_expected"]),
            size(rule["mem_mb"]),
            size(rule["used_mb"]),
        ]
        for rule in found["rules"]
    ]
    wall = duration(found["wall_s"])
    ratio = amount(found["used_to_expected"])
    return "\n".join(
        [
            f"As it was: {found['jobs']:,} jobs, each as it ran last; the last run took {wall}\n",
            *table(head, rows),
            "",
            f"  {found['jobs_compared']:,} jobs with an expectation: {amount(found['used_job_hours'])} hours used, "
            f"{amount(found['expected_job_hours'])} expected, ratio {ratio}",
        ]
    )
