"""Where trials run: jobs of the cluster by submitit, or processes of this machine. Both are started again elsewhere.

A trial is a program of its own (``scripts/tune.py ... --trial N``), so that it is the same in both places and needs
nothing from the process that leads the search.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fewscans.cluster import slurm
from fewscans.cluster.site import Site
from fewscans.errors import UserError
from fewscans.files import digest, write_json
from fewscans.runrecord import is_alive, process_start
from fewscans.tune.status import JOB, read_job
from fewscans.tune.trial import moved_since

log = logging.getLogger("fewscans")

LOG = "trial.log"
# How long a process may take to save its state when it is asked to end.
GRACE_S = 30.0
# Before the end of a job's time: what saving the state and requeueing may take.
SIGNAL_DELAY_S = 90


class Launcher(Protocol):
    """Starts trials and knows which of them live."""

    slots: int
    """Trials at once."""
    poll_s: float

    def start(self, number: int, command: Sequence[str], folder: Path) -> None:
        """Start trial `number`; its log and what is known of its job lie in `folder`."""

    def living(self, folders: Mapping[int, Path]) -> set[int] | None:
        """Which of these trials are waiting or running; None where nobody can say now."""

    def cancel(self, folders: Mapping[int, Path]) -> None:
        """End these trials; what they have done is kept."""


# -- this machine ----------------------------------------------------------------------------------


class Processes:
    """Trials as processes here, at most `slots` at once; one that outlives its leader is found again."""

    poll_s = 0.5

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, command: Sequence[str], folder: Path) -> None:
        """Start it in a session of its own: a Ctrl-C is for the leader, which tells its trials."""
        with open(folder / LOG, "ab") as handle:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle,
                start_new_session=True,
            )  # fmt: skip
        self._children[number] = child
        note = {"host": socket.gethostname(), "pid": child.pid, "start": process_start(child.pid)}
        write_json(folder / JOB, {**read_job(folder), **note, "started": time.time()})

    def living(self, folders: Mapping[int, Path]) -> set[int]:
        """By process number and start time, so that a number given out again is not mistaken."""
        for child in self._children.values():
            child.poll()
        return {number for number, folder in folders.items() if self._pid(folder) is not None}

    def cancel(self, folders: Mapping[int, Path]) -> None:
        """SIGTERM, and SIGKILL for those that take too long to save."""
        for last in (signal.SIGTERM, signal.SIGKILL):
            for folder in folders.values():
                pid = self._pid(folder)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, last)
            until = time.monotonic() + GRACE_S
            while self.living(folders) and time.monotonic() < until:
                time.sleep(0.1)

    def _pid(self, folder: Path) -> int | None:
        job = read_job(folder)
        if "pid" not in job or job.get("host") != socket.gethostname():
            return None
        return job["pid"] if is_alive(job["pid"], job["start"]) else None


# -- the cluster -----------------------------------------------------------------------------------


class Jobs:
    """Trials as jobs of the cluster, one each.

    Parameters
    ----------
    site, minutes, mem_mb, threads, gpu
        What a trial's job asks for.
    folder
        Of the search, on storage that all nodes see: the same folder names its jobs.
    """

    def __init__(
        self, site: Site, folder: Path, slots: int, *, minutes: int, mem_mb: int, threads: int,
        gpu: bool, poll_s: float = 15.0,
    ) -> None:  # fmt: skip
        self.site, self.folder, self.slots, self.poll_s = site, folder, slots, poll_s
        self.minutes, self.mem_mb, self.threads, self.gpu = minutes, mem_mb, threads, gpu
        self._missing: dict[int, int] = {}
        # A comment stays with a job through requeues, and is known even where sbatch's answer got lost.
        self.mark = digest(str(folder.resolve()))

    def start(self, number: int, command: Sequence[str], folder: Path) -> None:
        """Submit it, unless a job of this trial is in the queue already (an answer of sbatch that got lost)."""
        if number in self._queued():
            return
        executor = self._executor(folder, number)
        from submitit.core.utils import FailedJobError

        try:
            job = executor.submit(TrialJob(list(command), str(folder.resolve()), os.getcwd()))
        except FailedJobError as error:
            raise UserError(f"trial {number} cannot be submitted: {error}") from None
        log.info("trial %d is job %s", number, job.job_id)
        write_json(
            folder / JOB, {**read_job(folder), "id": str(job.job_id), "started": time.time()}
        )
        self._missing.pop(number, None)

    def living(self, folders: Mapping[int, Path]) -> set[int] | None:
        """As the queue says; a job must be missing twice, since a new one may not be listed yet."""
        try:
            queued = self._queued()
        except slurm.SlurmError as error:
            log.info("the queue gives no answer, waiting: %s", error.text)
            return None
        for number in folders:
            gone = number not in queued
            self._missing[number] = self._missing.get(number, 0) + 1 if gone else 0
        return {number for number in folders if self._missing[number] < 2}

    def cancel(self, folders: Mapping[int, Path]) -> None:
        """Take them out of the queue and wait until they have left it."""
        until = time.monotonic() + 2 * GRACE_S
        while time.monotonic() < until:
            try:
                queued = self._queued()
                ids = [job for number, job in queued.items() if number in folders]
                if not ids:
                    return
                slurm.cancel(ids)
            except slurm.SlurmError as error:
                log.warning("cannot cancel now, trying again: %s", error.text)
            time.sleep(1.0)
        log.warning("some trials are still in the queue: squeue --me --name=fewscans-tune")

    def _queued(self) -> dict[int, str]:
        """Trial -> job id, of this search's jobs in the queue."""
        found = {}
        for job in slurm.jobs(name="fewscans-tune"):
            mark, _, number = job.comment.rpartition("_")
            if mark == f"tune_{self.mark}" and number.isdigit():
                found[int(number)] = job.id
        return found

    def _executor(self, folder: Path, number: int) -> Any:
        try:
            import submitit
        except ImportError:
            raise UserError(
                "trials on a cluster are submitted by submitit, which is not installed: "
                "pip install 'fewscans[slurm,tune]'"
            ) from None
        made = submitit.AutoExecutor(
            folder=str(folder / "submitit"), cluster="slurm", slurm_max_num_timeout=1000
        )
        made.update_parameters(**self.parameters(number))
        return made

    def parameters(self, number: int) -> dict[str, Any]:
        """What submitit is told about a trial's job, as the site wants it."""
        wish, site = self.site.job_class("gpu" if self.gpu else "cpu"), self.site
        limits = site.partition("gpu" if self.gpu else "cpu")
        minutes = max(self.minutes, wish.min_runtime or 1)
        if limits is not None and limits.max_runtime is not None:
            minutes = min(minutes, limits.max_runtime)
        more: dict[str, Any] = {"requeue": True}
        made: dict[str, Any] = {
            "timeout_min": minutes,
            "cpus_per_task": self.threads,
            "slurm_mem": f"{max(self.mem_mb, wish.min_mem_mb or 1)}MB",
            "slurm_job_name": "fewscans-tune",
            "slurm_comment": f"tune_{self.mark}_{number}",
            "slurm_signal_delay_s": min(SIGNAL_DELAY_S, 30 * minutes),
            "slurm_setup": setup_lines(site, wish.extra),
        }
        if self.gpu:
            model = f"{wish.gpu_model}:" if wish.gpu_model else ""
            if site.gpu_request == "gres":
                made["slurm_gres"] = f"gpu:{model}1"
            else:
                more["gpus"] = f"{model}1"
        named = {
            "slurm_partition": wish.partition, "slurm_account": site.account,
            "slurm_qos": wish.qos, "slurm_constraint": wish.constraint,
        }  # fmt: skip
        if site.reservation:
            more["reservation"] = site.reservation
        made |= {key: value for key, value in named.items() if value}
        return {**made, "slurm_additional_parameters": more}


def setup_lines(site: Site, extra: str) -> list[str]:
    """Lines of the job's script before its command: further options, then modules."""
    return [*([f"#SBATCH {extra}"] if extra else []), *(f"module load {m}" for m in site.modules)]


def leave_job() -> None:
    """Forget that this process is a job itself: what it submits must not take over its size."""
    kept = ("SLURM_CONF", "SLURM_JOB_ID")  # the latter says when this job ends; jobs get their own
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) and name not in kept:
            del os.environ[name]


class TrialJob:
    """What submitit runs in the job: the trial as a child, told in time to save its state.

    Near the end of the job's time (SIGUSR2) submitit calls `checkpoint`, writes down what it returns and requeues
    the job; preemption and a failed node are requeued by Slurm itself. Each start goes on from the trial's state.
    """

    def __init__(self, command: list[str], folder: str, directory: str) -> None:
        self.command, self.folder, self.directory = command, folder, directory
        self._child: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Without the child, which is of this start alone."""
        return {**self.__dict__, "_child": None}

    def __call__(self) -> int:
        """Run the trial; its exit code."""
        self._began = time.time()
        with open(Path(self.folder) / LOG, "ab") as handle:
            # SIGUSR2 goes to every process of the job; only this one is to act on it.
            self._child = subprocess.Popen(
                self.command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=handle,
                stderr=handle, preexec_fn=_deaf,
            )  # fmt: skip
        while self._child.poll() is None:
            time.sleep(0.2)
        return int(self._child.returncode)

    def checkpoint(self) -> Any:
        """Have the state saved; what to run when the job starts again, or nothing where it would be for nothing."""
        import submitit

        if self._child is not None and not _has_ended(self._child.pid):
            os.kill(self._child.pid, signal.SIGTERM)
            until = time.monotonic() + SIGNAL_DELAY_S
            while not _has_ended(self._child.pid) and time.monotonic() < until:
                time.sleep(0.1)
        if not moved_since(Path(self.folder), self._began):
            print("nothing was kept in this start: the job's time is too short", file=sys.stderr)
            return None
        return submitit.helpers.DelayedSubmission(self)


def _has_ended(pid: int) -> bool:
    """Without taking the exit code away from `Popen`, whose lock may be held where a signal came in between."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _deaf() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
