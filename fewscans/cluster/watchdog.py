"""Endless waits of Snakemake on Slurm, noticed from its main process by holding its open jobs against the queue.

Its executor forgets jobs when all attempts to ask for their state fail, waits for ever for a job that was preempted for
good, and for one that Slurm no longer knows. Two looks, farther apart than its longest polling interval, must agree.
Jobs that are known to be lost are named at once; the run ends when nothing else is left that could go on.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fewscans.cluster import reasons, slurm

# The executor looks at most every 180 s; ending it takes as long, since its thread is waited for.
LOOK_S, GRACE_S = 300.0, 300.0
# For tests.
LOOK_VARIABLE, GRACE_VARIABLE = "FEWSCANS_LOOK_S", "FEWSCANS_GRACE_S"
# So many looks without any submission, while jobs wait to be submitted, are not a slow sbatch any more.
UNSUBMITTED_LOOKS = 6


@dataclass(frozen=True)
class Open:
    """A submitted job that Snakemake waits for."""

    id: str
    """Slurm's."""
    rule: str
    wildcards: str = ""
    log: str = ""
    forgotten: bool = False
    """Whether the executor has dropped it from its list."""

    def __str__(self) -> str:
        place = f", log {self.log}" if self.log else ""
        return f"job {self.id} (rule {self.rule}{' ' + self.wildcards if self.wildcards else ''}{place})"


class View(Protocol):
    """What the watchdog must know of Snakemake."""

    def open_jobs(self) -> list[Open]:
        """Submitted, not reported as ended."""

    def others(self) -> tuple[int, int]:
        """(jobs chosen but not submitted yet, jobs running here)."""

    def polling_s(self) -> float:
        """Seconds within which Snakemake would notice an end by itself."""


class SnakemakeView:
    """Reads the scheduler and the executor of a running workflow.

    Their own list of active jobs is empty during each check, so submissions are noted as they are reported.
    """

    def __init__(self, workflow: Any) -> None:
        self.scheduler = workflow.scheduler
        self.executor = self.scheduler._executor
        self.run_id: str = self.executor.run_uuid
        self._submitted: dict[Any, tuple[Any, int]] = {}
        report = self.executor.report_job_submission

        def noted(info: Any, *arguments: Any, **named: Any) -> Any:
            self._submitted[info.job] = (info, info.job.attempt)
            return report(info, *arguments, **named)

        self.executor.report_job_submission = noted
        self.others(), self.polling_s()  # so that what is missing shows now

    @property
    def several_clusters(self) -> bool:
        """Whether jobs went to other clusters, whose queue is not looked at."""
        return bool(getattr(self.executor, "_submitted_job_clusters", ()))

    def _running(self) -> tuple[list[Any], list[Any]]:
        """(submitted, not submitted) of those that Snakemake waits for, none that it is just finishing."""
        with self.scheduler._lock:
            ending = {*self.scheduler._tofinish, *self.scheduler._toerror}
            running = [job for job in self.scheduler.running if job not in ending]
        submitted = [
            job
            for job in running
            if job in self._submitted and self._submitted[job][1] == job.attempt
        ]
        known = set(submitted)
        return submitted, [job for job in running if job not in known]

    def open_jobs(self) -> list[Open]:
        """Submitted, not reported as ended."""
        active = {info.external_jobid for info in list(self.executor.active_jobs)}
        made = []
        for job in self._running()[0]:
            info = self._submitted[job][0]
            if info.external_jobid is None:
                continue
            wildcards = getattr(job, "wildcards_dict", None) or {}
            made.append(
                Open(
                    str(info.external_jobid),
                    str(getattr(job, "name", job)),
                    ", ".join(f"{name}={value}" for name, value in wildcards.items()),
                    str((info.aux or {}).get("slurm_logfile") or ""),
                    info.external_jobid not in active,
                )
            )
        return made

    def others(self) -> tuple[int, int]:
        """(jobs chosen but not submitted yet, jobs running here)."""
        left = self._running()[1]
        here = sum(bool(job.is_local) for job in left)
        return len(left) - here, here

    def polling_s(self) -> float:
        """Seconds within which Snakemake would notice an end by itself."""
        # The interval grows by 10 s with each check.
        return float(self.executor.next_seconds_between_status_checks) + 12


@dataclass
class Finding:
    """A job that will not end, as one look sees it."""

    job: Open
    kind: str
    cause: str
    since: float = field(default_factory=time.monotonic)
    """When a look first saw it."""


@dataclass
class Watchdog:
    """Looks, tells, and in the end stops the run."""

    view: View
    run_id: str
    say: Callable[[str], None]
    stop: Callable[[str], None]
    accounting: bool = True
    command: Sequence[str] = ()
    told: set[tuple[str, str]] = field(default_factory=set)
    before: dict[tuple[str, str], Finding] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    waiting: int = 0
    silent: bool = False

    def look(self) -> bool:
        """One look; True when it stopped the run."""
        jobs = self.view.open_jobs()
        unsubmitted, here = self.view.others()
        try:
            queue = {job.id: job for job in slurm.jobs(name=self.run_id)} if jobs else {}
            now = self._judge(jobs, queue)
        except slurm.SlurmError as error:
            # Not a look: nothing is known.
            if not self.silent:
                self.silent = True
                self.say(
                    f"watchdog: Slurm gives no answer ({error}); jobs are looked at again when it does."
                )
            return False
        self.silent = False
        confirmed = []
        for key, one in now.items():
            if key in self.before:
                one.since = self.before[key].since
                if time.monotonic() - one.since >= self.view.polling_s():
                    confirmed.append(one)
        self.before = now
        self.waiting = self.waiting + 1 if unsubmitted and not jobs else 0
        fresh = [one for one in confirmed if (one.job.id, one.kind) not in self.told]
        self.told |= {(one.job.id, one.kind) for one in fresh}
        lost = {one.job.id for one in confirmed if one.kind in ("gone", "never")}
        if jobs and len(lost) == len(jobs) and not unsubmitted and not here:
            self.stop(self._message([one for one in confirmed if one.job.id in lost], ends=True))
            return True
        if self.waiting >= UNSUBMITTED_LOOKS and not here:
            self.stop(
                f"watchdog: {unsubmitted} job(s) were chosen and never submitted. This happens with slurm-array-jobs "
                f"and a small `jobs`, and where sbatch does not return.\n{self._again()}"
            )
            return True
        if fresh:
            self.say(self._message(fresh, ends=False))
        return False

    def _judge(
        self, jobs: Sequence[Open], queue: dict[str, slurm.Job]
    ) -> dict[tuple[str, str], Finding]:
        found: dict[tuple[str, str], Finding] = {}
        gone = [job for job in jobs if job.id not in queue]
        states = self._states([job.id for job in gone])
        for job in gone:
            found[job.id, "gone"] = Finding(job, "gone", _cause(job, states.get(job.id)))
        for job in jobs:
            queued = queue.get(job.id)
            if queued is None or queued.state != "PENDING":
                continue
            kind = reasons.kind(queued.reason)
            if kind == "requeued-held" and job.id not in self.released:
                self._release(job)
            elif kind != "passes":
                kind = "never" if kind == "requeued-held" else kind
                cause = f"{reasons.words(queued.reason, job.id)}, in partition {queued.partition}"
                found[job.id, kind] = Finding(job, kind, cause)
        return found

    def _states(self, ids: list[str]) -> dict[str, str]:
        """Last words of jobs that are not in the queue any more, where somebody remembers."""
        if not ids:
            return {}
        known = {
            job.id: job.state
            for job in slurm.jobs(ids, name=self.run_id, ended=True)
            if job.name == self.run_id
        }
        if self.accounting:
            try:
                known |= {job.id: job.state for job in slurm.accounts(ids, name=self.run_id)}
            except slurm.SlurmError:
                self.accounting = False
        return known

    def _release(self, job: Open) -> None:
        """Once: Slurm holds a job that it failed to start, e.g. after its controller came back."""
        self.released.add(job.id)
        try:
            slurm.run(["scontrol", "release", job.id])
            self.say(f"watchdog: {job} could not be started and was held by Slurm; released once.")
        except slurm.SlurmError as error:
            self.say(
                f"watchdog: {job} is held by Slurm after it could not be started, and could not be released ({error})."
            )

    def _message(self, findings: Sequence[Finding], ends: bool) -> str:
        lines = ["watchdog: Snakemake waits for jobs that will not end by themselves:"]
        lines += [f"  {one.job}: {one.cause}" for one in findings[:10]]
        if len(findings) > 10:
            lines.append(f"  ... and {len(findings) - 10} more")
        if ends:
            return "\n".join([*lines, self._again()])
        if all(one.kind == "somebody" for one in findings):
            return "\n".join([*lines, "The run goes on and waits for them."])
        return "\n".join([*lines, "The run ends when nothing else is left to wait for."])

    def _again(self) -> str:
        return (
            "Nothing is left that could go on, so this run ends. What is finished stays; to go on, repeat the "
            f"command:\n  {shlex.join(self.command)}"
        )


def _cause(job: Open, state: str | None) -> str:
    if state is None:
        return "Slurm does not know it (any more); it may have been lost with the controller"
    if state == "PREEMPTED":
        return "was preempted for good (PREEMPTED, not requeued), and Snakemake leaves it to Slurm"
    if job.forgotten:
        return f"has ended ({state}), but Snakemake forgot it when asking for states failed"
    return f"has ended ({state}), and Snakemake does not notice"


# -- in the main process ---------------------------------------------------------------------------


def start(workflow: Any, command: Sequence[str], say: Callable[[str], None]) -> threading.Thread:
    """A daemon thread that looks now and then; it says so and ends where Snakemake is not built as expected."""
    view = SnakemakeView(workflow)
    grace = float(os.environ.get(GRACE_VARIABLE, GRACE_S))
    look_s = float(os.environ.get(LOOK_VARIABLE, LOOK_S))
    dog = Watchdog(
        view,
        view.run_id,
        say,
        lambda message: end_run(message, view.run_id, say, grace),
        command=command,
        accounting=slurm.available("sacct"),
    )

    def watch() -> None:
        while True:
            time.sleep(look_s)
            if view.several_clusters:
                say("watchdog: off, since jobs go to several clusters.")
                return
            try:
                if dog.look():
                    return
            except Exception as error:  # of a Snakemake built otherwise; the run itself is not hurt
                say(f"watchdog: off ({type(error).__name__}: {error}). Look with: fewscans doctor")
                return

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    return thread


def end_run(message: str, run_id: str, say: Callable[[str], None], grace_s: float) -> None:
    """SIGINT, which cancels the jobs in order; SIGKILL where that does not end it in time."""
    say(message)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(grace_s)
    say(f"watchdog: the run did not end within {grace_s:.0f} s; killed.")
    try:
        slurm.cancel([job.id for job in slurm.jobs(name=run_id)])
    except slurm.SlurmError as error:
        say(f"its jobs could not be cancelled ({error}); scancel --name={run_id}")
    os.kill(os.getpid(), signal.SIGKILL)
