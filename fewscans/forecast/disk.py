"""Space and files that the outputs take, by kind and at the fullest moment, and what is free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fewscans.forecast.jobs import Job
from fewscans.forecast.place import Place
from fewscans.forecast.schedule import Schedule

# What rules write, in words.
KINDS = {
    "weights": "downloaded weights",
    "phantom": "generated scans",
    "convert": "converted scans",
    "export": "scans for a viewer",
    "normalise": "stores of pixels",
    "normalise_fold": "stores of pixels",
    "pretrain": "encoders",
    "pretrain_ranks": "encoders",
    "finetune": "predictions and embeddings",
    "tune": "searches",
    "audit": "tables",
    "folds": "tables",
    "budgets": "tables",
    "aggregate": "tables",
    "learns": "tables",
    "plan": "tables",
    "audit_page": "report",
    "report": "report",
    "shareable": "what may be shared",
}


def by_kind(jobs: Sequence[Job], here: Schedule, place: Place) -> dict[str, Any]:
    """MB and files by kind of output; the peak counts what jobs hold only while they run."""
    found: dict[str, dict[str, float]] = {}
    for job in jobs:
        kind = found.setdefault(KINDS.get(job.rule, job.rule), {"mb": 0.0, "files": 0})
        kind["mb"] += job.output_mb or 0.0
        kind["files"] += job.output_files or 0
    return {
        "kinds": [{"kind": name, **values} for name, values in sorted(found.items())],
        "total_mb": sum(job.output_mb or 0.0 for job in jobs),
        "peak_mb": _peak_mb(jobs, here, place),
        "files": sum(job.output_files or 0 for job in jobs),
        "jobs_of_unknown_size": sum(job.output_mb is None for job in jobs),
    }


def _peak_mb(jobs: Sequence[Job], here: Schedule, place: Place) -> float:
    changes = []
    for number, unit in enumerate(place.units(jobs)):
        output = sum(jobs[j].output_mb or 0.0 for j in unit)
        scratch = max(jobs[j].scratch_mb for j in unit)
        # What ends gives back before another starts.
        changes.append((here.starts[number], 1, output + scratch))
        changes.append((here.ends[number], 0, -scratch))
    now = peak = 0.0
    for _, _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    return peak


def existing(folder: Path) -> Path:
    """The nearest folder above that is there."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    return path


def free(jobs: Iterable[Job], directory: str, passing_mb: float = 0.0) -> list[dict[str, Any]]:
    """Per file system that is written to: what is free at this moment, and what this run needs at its fullest.

    `passing_mb` comes on top of the outputs then; it lies where the jobs that hold it write.
    """
    needed: dict[str, list[float]] = {}
    for job in jobs:
        parts = job.folder.split("/")
        entry = needed.setdefault("/".join(parts[: 1 if parts[0] else 4]), [0.0, 0])
        entry[0] += job.output_mb or 0.0
        entry[1] += job.output_files or 0
        if job.scratch_mb:
            entry[0] += passing_mb
            passing_mb = 0.0
    systems: dict[int, dict[str, Any]] = {}
    for folder, (mb, files) in sorted(needed.items()):
        try:
            where = existing(Path(directory, folder))
            device = os.stat(where).st_dev
            known = os.statvfs(where)
        except OSError:
            continue
        system = systems.setdefault(
            device,
            {
                "folder": folder,
                "free_mb": known.f_bavail * known.f_frsize / 1e6,
                # Some file systems make inodes as they go, and say 0.
                "free_files": known.f_favail if known.f_files else None,
                "needed_mb": 0.0,
                "needed_files": 0,
            },
        )
        system["needed_mb"] += mb
        system["needed_files"] += files
    return list(systems.values())
