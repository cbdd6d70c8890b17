"""What a real run leaves for ``fewscans plan --actual``: a line per finished job, in ``WORK/runs/jobs.jsonl``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fewscans.forecast import context
from fewscans.forecast.jobs import Collector, to_rows

PLACE = ("runs", "jobs.jsonl")
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\S+)")
# Of a job, what is compared with what it used.
KEPT = (
    *("name", "rule", "cpus", "gpus", "mem_mb", "runtime_min"),
    *("expected_s", "expected_p95_s", "estimate", "benchmark"),
)


class Recorder:
    """Notes starts and ends of jobs; writes when one has ended."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.known: dict[int, dict[str, Any]] = {}
        self.slurm: dict[int, str] = {}
        self.began: float | None = None

    def take(self, event: Any, record: Any) -> None:
        """Hear one event; `record.created` is its time."""
        if event == self.events.JOB_INFO:
            self._know(record)
        elif event == self.events.JOB_FINISHED:
            self._write(record.job_id, record.created)
        elif event == self.events.WORKFLOW_STARTED:
            self.began = record.created
        elif event is None and (found := SUBMITTED.search(str(record.msg))):
            self.slurm[int(found[1])] = found[2].rstrip(".")

    def end(self) -> None:
        """Nothing is left to write: each job was written as it ended."""

    def _know(self, record: Any) -> None:
        one = Collector()
        one.add(record)
        rows = to_rows(one.jobs())
        if rows:
            job = {key: rows[0][key] for key in KEPT}
            self.known[record.jobid] = {**job, "started_unix_s": record.created}

    def _write(self, jobid: int, when: float) -> None:
        job = self.known.pop(jobid, None)
        work = context.work_folder()
        if job is None or work is None:
            return
        line = {
            **job,
            "ended_unix_s": when,
            "run_began_unix_s": self.began,
            "slurm_id": self.slurm.pop(jobid, None),
        }
        path = Path(work, *PLACE)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
