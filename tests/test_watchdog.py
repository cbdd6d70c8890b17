"""Endless waits are noticed in two looks, named, and ended when nothing else can go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewscans.cluster import slurm
from fewscans.cluster.watchdog import UNSUBMITTED_LOOKS, Open, SnakemakeView, Watchdog

ROOT = Path(__file__).resolve().parent.parent
LOG = ".snakemake/slurm_logs/rule_part/p0/7.log"


def queued(job_id="7", state="RUNNING", reason="None", name="run-a"):
    return slurm.Job(job_id, name, state, "rule_part", "/x", "cpu", "n1", None, None, reason, 0)


class World:
    """Snakemake's side and Slurm's side of the same jobs."""

    def __init__(self, monkeypatch) -> None:
        self.open = [Open("7", "part", "name=p0", LOG)]
        self.waiting = (0, 0)
        self.queue: list[slurm.Job] = [queued()]
        self.ended: list[slurm.Job] = []
        self.accounts: list[slurm.Job] = []
        self.fails: Exception | None = None
        self.polling = 0.0
        self.commands: list[list[str]] = []
        self.said: list[str] = []
        self.stopped: list[str] = []
        monkeypatch.setattr(slurm, "jobs", self._jobs)
        monkeypatch.setattr(slurm, "accounts", lambda *_, **__: self.accounts)
        monkeypatch.setattr(slurm, "run", lambda command, *_: self.commands.append(command) or "")
        self.dog = Watchdog(
            self, "run-a", self.said.append, self.stopped.append, command=["snakemake", "-x"]
        )

    def _jobs(self, ids=None, *, name=None, ended=False, **_):
        if self.fails:
            raise self.fails
        known = [*self.queue, *(self.ended if ended else [])]
        return [job for job in known if name in (None, job.name) and (not ids or job.id in ids)]

    def open_jobs(self):
        return self.open

    def others(self):
        return self.waiting

    def polling_s(self):
        return self.polling

    def looks(self, n=2):
        return [self.dog.look() for _ in range(n)]


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_jobs_that_run_or_wait_their_turn_are_left_alone(world):
    world.open.append(Open("8", "part"))
    world.queue.append(queued("8", "PENDING", "Priority"))
    assert world.looks(5) == [False] * 5
    assert world.said == world.stopped == []


def test_an_end_that_snakemake_forgot_is_told_with_cause_job_rule_log_and_command(world):
    world.open = [Open("7", "part", "name=p0", LOG, forgotten=True)]
    world.queue, world.accounts = [], [queued(state="COMPLETED")]
    assert world.looks() == [False, True]
    (text,) = world.stopped
    for part in ("job 7", "rule part name=p0", LOG, "COMPLETED", "forgot", "snakemake -x"):
        assert part in text


def test_a_final_preemption(world):
    world.queue, world.accounts = [], [queued(state="PREEMPTED")]
    assert world.looks() == [False, True]
    assert "preempted for good" in world.stopped[0]


def test_a_preempted_job_that_was_requeued_is_no_finding(world):
    world.queue, world.accounts = (
        [queued(state="PENDING", reason="BeginTime")],
        [queued(state="PREEMPTED")],
    )
    assert world.looks(3) == [False] * 3
    assert world.said == []


def test_a_job_unknown_to_slurm_and_an_id_that_is_somebody_elses_now(world):
    world.queue = [queued(name="another-run")]
    assert world.looks() == [False, True]
    assert "does not know it" in world.stopped[0]


def test_without_accounts_squeue_may_still_remember(world):
    world.dog.accounting = False
    world.queue, world.ended = [], [queued(state="CANCELLED")]
    world.looks()
    assert "CANCELLED" in world.stopped[0]


def test_two_looks_must_agree(world):
    world.queue = []
    assert world.looks(1) == [False]
    world.open = [Open("8", "part")]  # 7 was noticed meanwhile
    assert world.looks(1) == [False]
    world.queue = [queued("8")]
    assert world.looks(1) == [False]
    assert world.said == world.stopped == []


def test_looks_closer_than_the_polling_do_not_count(world):
    world.queue, world.polling = [], 3600.0
    assert world.looks(4) == [False] * 4
    assert world.said == world.stopped == []


def test_while_others_go_on_it_is_told_once_and_the_run_goes_on(world):
    world.open.append(Open("8", "part"))
    world.queue = [queued("8")]
    assert world.looks(5) == [False] * 5
    assert len(world.said) == 1
    assert "ends when nothing else is left" in world.said[0]
    world.queue = []
    assert world.looks(2) == [False, True]


@pytest.mark.parametrize("others", [(1, 0), (0, 1)])
def test_jobs_being_submitted_or_running_here_are_waited_for(world, others):
    world.queue, world.waiting = [], others
    assert world.looks(3) == [False] * 3
    world.waiting = (0, 0)
    assert world.looks(1) == [True]


def test_a_request_that_can_never_be_met(world):
    world.queue = [queued(state="PENDING", reason="PartitionTimeLimit")]
    assert world.looks() == [False, True]
    assert "more time than its partition allows (PartitionTimeLimit)" in world.stopped[0]


def test_what_somebody_must_see_to_is_only_told(world):
    world.queue = [queued(state="PENDING", reason="JobHeldUser")]
    assert world.looks(4) == [False] * 4
    assert len(world.said) == 1
    assert "scontrol release 7" in world.said[0]
    assert "goes on" in world.said[0]


def test_a_job_that_slurm_failed_to_start_is_released_once(world):
    world.queue = [queued(state="PENDING", reason="launch failed requeued held")]
    assert world.looks(2) == [False, False]
    assert world.commands == [["scontrol", "release", "7"]]
    assert world.looks(1) == [True]
    assert world.commands == [["scontrol", "release", "7"]]


def test_silence_of_slurm_is_no_look_and_told_once(world):
    world.queue = []
    world.looks(1)
    world.fails = slurm.SlurmError(["squeue"], "Unable to contact slurm controller")
    assert world.looks(5) == [False] * 5
    assert len(world.said) == 1
    world.fails, world.queue = None, [queued()]
    assert world.looks(2) == [False, False]
    assert world.stopped == []


def test_jobs_that_are_never_submitted(world):
    world.open, world.waiting = [], (8, 0)
    assert world.looks(UNSUBMITTED_LOOKS) == [False] * (UNSUBMITTED_LOOKS - 1) + [True]
    assert "8 job(s) were chosen and never submitted" in world.stopped[0]


# -- Snakemake's side ------------------------------------------------------------------------------


class Job:
    """As much of a job as is looked at."""

    name, is_local, attempt = "part", False, 1
    wildcards_dict = {"name": "p0"}


def workflow_with(running):
    """The attributes of Snakemake's scheduler and executor that are read."""
    reported: Counter[str] = Counter()
    executor = SimpleNamespace(
        run_uuid="run-a",
        active_jobs=[],
        next_seconds_between_status_checks=40,
        report_job_submission=lambda info, **_: reported.update([info.external_jobid]),
    )
    scheduler = SimpleNamespace(
        _executor=executor, running=running, _tofinish=[], _toerror=[], _lock=threading.Lock()
    )
    return SimpleNamespace(scheduler=scheduler), executor, scheduler, reported


def test_open_jobs_of_snakemake():
    jobs = [Job(), Job()]
    workflow, executor, scheduler, reported = workflow_with(set(jobs))
    view = SnakemakeView(workflow)
    assert view.open_jobs() == []
    assert view.others() == (2, 0)
    for i, job in enumerate(jobs):
        info = SimpleNamespace(job=job, external_jobid=str(i), aux={"slurm_logfile": Path("x.log")})
        executor.report_job_submission(info)
        executor.active_jobs.append(info)
    assert reported == {"0": 1, "1": 1}
    del executor.active_jobs[0]
    assert sorted(view.open_jobs(), key=lambda one: one.id) == [
        Open("0", "part", "name=p0", "x.log", True),
        Open("1", "part", "name=p0", "x.log", False),
    ]
    jobs[0].attempt = 2  # failed, and waits to be submitted again
    assert [one.id for one in view.open_jobs()] == ["1"]
    assert view.others() == (1, 0)
    scheduler._tofinish.append(jobs[1])
    assert view.open_jobs() == []


def test_the_installed_snakemake_has_what_is_read():
    """By name, so that a new version shows here and not in the middle of a run."""
    scheduler = pytest.importorskip("snakemake.scheduling.job_scheduler")
    pytest.importorskip("snakemake_executor_plugin_slurm")
    from snakemake_executor_plugin_slurm import Executor

    text = Path(scheduler.__file__).read_text()
    for name in ("self.running", "self._tofinish", "self._toerror", "self._lock", "self._executor"):
        assert f"{name} = " in text
    assert hasattr(Executor, "report_job_submission")
    assert hasattr(Executor, "next_seconds_between_status_checks")
    plugin = Path(sys.modules[Executor.__module__].__file__).read_text()
    assert "self.run_uuid = " in plugin
    assert "self._submitted_job_clusters" in plugin


END = """
import signal, sys, threading, time
from fewscans.cluster import slurm, watchdog

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
hangs, heard = sys.argv[1] == "hangs", threading.Event()
slurm.jobs = lambda **_: heard.wait() and []  # asked for before SIGKILL
grace = 0 if hangs else 10**6
thread = threading.Thread(target=watchdog.end_run, args=("cause", "run-a", print, grace), daemon=True)
try:
    thread.start()
    time.sleep(10**6)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    heard.set()
    time.sleep(10**6 if hangs else 0)
"""


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("hangs", -signal.SIGKILL)])
def test_the_end_is_sigint_and_then_sigkill(how, code):
    done = subprocess.run(
        [sys.executable, "-c", END, how], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("cause\n")
    assert "interrupted" in done.stdout
    assert done.returncode == code
