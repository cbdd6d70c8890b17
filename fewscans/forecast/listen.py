"""What the logger plugin does in a dry-run: gather the jobs, then print the plan or hand the jobs on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fewscans.cluster.site import Site, read_site
from fewscans.files import atomic
from fewscans.forecast import context
from fewscans.forecast.jobs import Collector, Job, from_rows, to_rows
from fewscans.forecast.place import Place
from fewscans.forecast.rates import PlanSettings, read_plan_settings


class DryRun:
    """Everything heard of one dry-run."""

    def __init__(self, events: Any, jobs_file: str | None) -> None:
        self.job_info = events.JOB_INFO
        self.run_info = events.RUN_INFO
        self.jobs_file = jobs_file
        self.collector = Collector()
        self.announced = 0

    def take(self, event: Any, record: Any) -> None:
        """Hear one event."""
        if event == self.job_info:
            self.collector.add(record)
        elif event == self.run_info:
            self.announced = int((getattr(record, "stats", None) or {}).get("total", 0))

    def end(self) -> None:
        """The dry-run is over."""
        facts = context.facts()
        jobs = self.collector.jobs(context.code_digests())
        if self.jobs_file:
            with atomic(self.jobs_file) as temporary:
                temporary.write_text(
                    json.dumps({"facts": context.as_json(facts), "jobs": to_rows(jobs)})
                )
        elif self.collector.seen:
            from fewscans.forecast.text import plan_text
            from fewscans.forecast.totals import build

            place, settings = place_of(facts)
            print("\n" + plan_text(build(jobs, place, settings)))
            sys.stdout.flush()
        elif self.announced:
            print("\nThe plan needs the jobs one by one; `fewscans plan` shows it without them.")


def place_of(facts: context.Facts, plan_file: str | None = None) -> tuple[Place, PlanSettings]:
    """Where jobs run, and what the plan should know of it."""
    settings = read_plan_settings(plan_file, facts.directory)
    site: Site | None = read_site(facts.site) if facts.site else None
    return Place(facts, site, settings.terms), settings


def read_jobs(path: str | Path) -> tuple[list[Job], context.Facts]:
    """What a dry-run left in its jobs file."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return from_rows(found["jobs"]), context.from_json(found["facts"])
