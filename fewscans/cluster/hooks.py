"""What happens around a run: the folder is taken, left-over jobs are settled, digests written, the watchdog started.

Called by ``rules/run.smk`` from Snakemake's own hooks, so in the main process only and never in a dry-run.
"""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans.cluster import filesystems, orphans, rundigests, slurm, watchdog
from fewscans.cluster.site import current_site
from fewscans.errors import UserError
from fewscans.runrecord import RunRecord, earlier_runs

# Counts how often this process started itself anew, so that it never does so for ever.
AGAIN = "FEWSCANS_STARTED_AGAIN"
MOST_STARTS = 3
# Failed jobs that are named at the end.
SHOWN = 20


class Run:
    """The run of this process on one work folder."""

    def __init__(self, workflow: Any, work: str | os.PathLike[str]) -> None:
        self.workflow = workflow
        self.work = Path(work)
        self.record = RunRecord(work)
        self.folder = Path.cwd()
        self.run_id = run_id_of(workflow)
        self._mark: Path | None = None

    def begin(self) -> None:
        """Take the folder, wait for what an earlier run left, and let jobs know what was planned.

        Raises
        ------
        UserError
            Another run lives here.
        """
        _hear_sigint()
        note = self.record.take(
            command_line(), more=jobs_of, say=say, on_lost=_lost, run_id=self.run_id
        )
        atexit.register(self.end)
        if note:
            say(note)
        if self.run_id is not None or (self.record.read() or {}).get("earlier"):
            self._settle()
        if self.run_id is not None:
            warning = filesystems.warning(self.work)
            if warning:
                say(f"{warning}. Ask the nodes: fewscans doctor --probe")
            self._mark = orphans.mark(self.folder, self.run_id, self.record.path)
            try:
                watchdog.start(self.workflow, command_line(), say)
            except Exception as error:  # of a Snakemake built otherwise
                say(f"watchdog: off ({type(error).__name__}: {error}). Look with: fewscans doctor")
        rundigests.write(self.work / rundigests.FILE, self.workflow.dag.needrun_jobs())

    def end(self) -> None:
        """Give the folder back; may be called twice."""
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)
        # Ended while jobs of earlier runs were waited for: the record names them for the next start.
        if not (self.record.read() or {}).get("earlier"):
            self.record.release()

    def cancel_rest(self) -> None:
        """Cancel what is left of this run's jobs.

        An interrupt that meets Snakemake while it looks at its jobs finds none of them in its list, and cancels none.
        """
        if self._mark is None or self.run_id is None:
            return
        try:
            slurm.cancel(job.id for job in slurm.jobs(name=self.run_id))
        except slurm.SlurmError as error:
            say(f"jobs of this run may be in the queue still ({error}); the next start finds them")

    def what_failed(self) -> str:
        """The jobs that failed for good, by rule and log, and what to do; the last words of a run that failed."""
        failed = getattr(getattr(self.workflow, "scheduler", None), "failed", ())
        # Several jobs may have been packed into one.
        jobs = [job for one in failed for job in getattr(one, "jobs", [one])]
        shown = sorted(_failure(job) for job in jobs)
        told = "What is finished stays; to go on, repeat the command:"
        if shown:
            more = [f"  ... and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
            shown = [f"{len(shown)} job(s) failed at each attempt:", *shown[:SHOWN], *more]
            told = "What is finished stays. Read the end of the log, mend the cause, then repeat the command:"
        return "\n".join([*shown, told, f"  {shlex.join(command_line())}"])

    def _settle(self) -> None:
        """Nothing may be submitted while jobs of a dead run still work on the same files."""
        rules = [rule.name for rule in self.workflow.rules]
        site = current_site()
        setting = site.orphans if site is not None else "wait"
        found = orphans.settle(lambda: orphans.find(self.folder, rules, self.run_id), setting, say)
        # No job of a dead run is left: its names need not be carried on.
        orphans.sweep(self.folder)
        self.record.note(earlier=[])
        if not found:
            return
        if setting == "wait" and self._may_start_again():
            say(
                "They have ended. What they finished counts, so Snakemake starts anew and plans again."
            )
            self._start_again()
        say(
            "They have ended. What they finished is not in this run's plan; it is found in the cache, so doing it "
            "again costs seconds."
        )

    def _may_start_again(self) -> bool:
        """The plan was made before those jobs ended. Only a process that was started by the command can repeat it."""
        program = Path(sys.argv[0])
        by_command = program.name == "snakemake" or program.parts[-2:] == (
            "snakemake",
            "__main__.py",
        )
        return by_command and int(os.environ.get(AGAIN, "0")) < MOST_STARTS

    def _start_again(self) -> None:
        os.environ[AGAIN] = str(int(os.environ.get(AGAIN, "0")) + 1)
        self.end()
        atexit.unregister(self.end)
        self.workflow.persistence.unlock()
        time.sleep(0.5)  # the logger writes from a thread
        sys.stdout.flush()
        sys.stderr.flush()
        os.chdir(self.workflow.workdir_init)
        own = ["-s"] if sys.flags.no_user_site else []
        os.execv(sys.executable, [sys.executable, *own, "-m", "snakemake", *sys.argv[1:]])


_RUN: Run | None = None


def begin(workflow: Any, work: str | os.PathLike[str]) -> None:
    """For `onstart`; see `Run.begin`. Ctrl-C, which Snakemake would answer with a traceback here, is a UserError."""
    global _RUN
    _RUN = Run(workflow, work)
    try:
        _RUN.begin()
    except KeyboardInterrupt:
        raise UserError(
            "interrupted before anything was submitted. Jobs of an earlier run that are in the queue go on; the same "
            "command waits for them again, and fewscans doctor shows them."
        ) from None


def end(failed: bool = False) -> None:
    """For `onsuccess` and `onerror`."""
    if _RUN is not None:
        if failed:
            _RUN.cancel_rest()
            say(_RUN.what_failed())
        _RUN.end()


def run_id_of(workflow: Any) -> str | None:
    """The name of this run's Slurm jobs; None where jobs do not go to Slurm."""
    executor = getattr(getattr(workflow, "scheduler", None), "_executor", None)
    if executor is None or not type(executor).__module__.startswith(
        "snakemake_executor_plugin_slurm"
    ):
        return None
    return getattr(executor, "run_uuid", None)


def jobs_of(record: dict[str, Any]) -> Sequence[str]:
    """Lines about the jobs of a run, by its record."""
    names = [name for name in [record.get("run_id"), *earlier_runs(record)] if name]
    if not names or not slurm.available("squeue"):
        return []
    try:
        found = [job for name in dict.fromkeys(names) for job in slurm.jobs(name=name)]
    except slurm.SlurmError as error:
        return [f"its jobs are not known: {error}"]
    return [f"{len(found)} job(s) of it in the queue:", *orphans.lines(found)] if found else []


def command_line() -> list[str]:
    """The command as it was typed, or nearly so."""
    program = Path(sys.argv[0])
    named = "snakemake" if program.name in ("snakemake", "__main__.py") else str(program)
    return [named, *sys.argv[1:]]


def say(line: str) -> None:
    """To the user's screen and Snakemake's log."""
    try:
        from snakemake.logging import logger

        logger.warning(line)
    except ImportError:
        print(line, file=sys.stderr, flush=True)


def _failure(job: Any) -> str:
    values = getattr(job, "wildcards_dict", None) or {}
    named = ", ".join(f"{name}={value}" for name, value in values.items())
    logs = ", ".join(map(str, getattr(job, "log", None) or []))
    return f"  rule {getattr(job, 'name', job)}{f' ({named})' if named else ''}{f', log {logs}' if logs else ''}"


def _hear_sigint() -> None:
    """A process started in the background of a script ignores SIGINT; then nothing could end this run in order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _lost(line: str) -> None:
    say(f"{line}. This run was thought dead and ends here.")
    os.kill(os.getpid(), signal.SIGINT)
