"""When a job stops, and how it ends: with clocks and a scontrol of the test's own, and with real processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_fakes import fake_slurm

from fewscans import cli
from fewscans.cluster import deadline
from fewscans.cluster.deadline import Here, ToBeContinuedError, Watch, ask, finish, watch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    with fake_slurm(tmp_path / "slurm", monkeypatch) as made:
        yield made


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "fewscans")
    return caplog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- asking ----------------------------------------------------------------------------------------


def left(here: Here) -> float:
    assert here.end is not None
    return here.end - time.monotonic()


def test_the_end_is_what_slurm_says(slurm):
    slurm.job(5, left_s=1800, limit_s=7200, Restarts=2)
    here = ask("5")
    assert left(here) == pytest.approx(1800, abs=30)
    assert (here.restarts, here.limit_s) == (2, 7200)


def test_a_clock_that_differs_from_the_controllers_is_harmless(slurm):
    slurm.job(5, left_s=1800)
    slurm.now(time.time() + 600)  # it is later there: less is left
    assert left(ask("5")) == pytest.approx(1200, abs=30)


def test_without_an_answer_the_variable_counts_and_then_nothing(slurm, monkeypatch, told):
    assert ask("6") == Here("6", None, None, None)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + 900)))
    assert left(ask("6")) == pytest.approx(900, abs=30)
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    slurm.job(7, EndTime="Unknown")
    assert ask("7").end is None
    monkeypatch.setenv("PATH", "/nonexistent")
    assert ask("5").end is None
    assert "no answer from Slurm about job 5" in told.text


def test_asked_once_and_only_inside_a_job(slurm, monkeypatch):
    assert deadline.here() is None
    assert not slurm.asked()
    deadline.here.cache_clear()
    slurm.job(5)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert deadline.here() is deadline.here()
    assert len(slurm.asked("show job")) == 1


# -- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_s", [60, 600, 14_400])
@pytest.mark.parametrize("step_s", [0.01, 1, 10])
@pytest.mark.parametrize("save_s", [0.1, 8])
def test_ends_in_time_and_not_much_before(monkeypatch, limit_s, step_s, save_s):
    clock = Clock()
    here = Here("5", 0, clock.now + limit_s, limit_s)
    monkeypatch.setattr(deadline, "ask", lambda *_: here)  # asked again, it says the same
    life = Watch(here, clock=clock)
    clock.now += step_s
    steps = 1
    saved = clock.now
    while not life.should_stop():
        clock.now += step_s
        steps += 1
        if clock.now - saved > 20:
            clock.now += save_s
            life.saved(save_s)
            saved = clock.now
    assert life.why == "deadline"
    left_s = here.end - clock.now
    assert left_s >= save_s + deadline.MARGIN_S[0]
    assert left_s <= 2 * save_s + 3 * step_s + 60 + deadline.SAVE_GUESS_S


def test_a_job_that_was_given_more_time_goes_on(slurm, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(deadline.time, "monotonic", clock)
    slurm.job(5, left_s=5000)
    life = Watch(Here("5", 0, clock.now + 1, 60), clock=clock)
    assert not life.should_stop()
    assert life.left_s == pytest.approx(5000, abs=30)
    slurm.job(5, left_s=3)
    clock.now += 4999
    assert life.should_stop()


def test_no_answer_the_second_time_leaves_the_end_where_it_was(slurm):
    clock = Clock()
    assert Watch(Here("9", 0, clock.now + 1, 60), clock=clock).should_stop()
    assert slurm.asked("show job 9")


def test_without_an_end_only_a_signal_stops():
    life = Watch(None)
    assert not life.should_stop()
    life.check(1e9, "much", moved=True)
    life.signalled(signal.SIGUSR2)
    assert life.should_stop()
    with pytest.raises(ToBeContinuedError, match="so far") as caught:
        life.stop("so far", moved=True)
    assert (caught.value.why, caught.value.by) == ("signal", signal.SIGUSR2)


@pytest.mark.parametrize("by", deadline.SIGNALS)
def test_a_signal_at_once_ends_the_work_where_it_is(slurm, by):
    def work():
        with watch(at_once=True):
            os.kill(os.getpid(), by)
            time.sleep(60)

    before = signal.getsignal(by)
    with pytest.raises(ToBeContinuedError) as caught:
        work()
    assert caught.value.by == by
    assert signal.getsignal(by) is before


def test_a_signal_that_was_ignored_stays_so(slurm):
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with watch() as life:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert not life.should_stop()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert life.should_stop()
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_one_of_several_processes_knows_the_end(slurm, monkeypatch):
    slurm.job(5, left_s=1)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    with watch(leader=False) as follower:
        assert not follower.should_stop()
    assert not slurm.asked()
    with watch() as leader:
        assert leader.should_stop()


# -- how -------------------------------------------------------------------------------------------


def over(**changes) -> ToBeContinuedError:
    values = {"why": "deadline", "words": "step 7 of 9", "moved": True, **changes}
    return ToBeContinuedError(**values)


def test_a_job_out_of_time_requeues_itself_and_waits(slurm, monkeypatch, told):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setattr(deadline, "WAIT_FOR_END_S", 0)
    assert finish(over()) == 75
    assert slurm.asked() == ["requeue 5"]
    assert "step 7 of 9" in told.text
    assert "was requeued and still runs" in told.text


def test_where_requeueing_is_refused_it_is_to_be_continued(slurm, monkeypatch, told):
    slurm.refuse()
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert finish(over()) == 75
    assert "job 5 cannot be requeued (Requested operation is presently disabled" in told.text
    assert "To be continued by a retry" in told.text


def test_a_start_that_moved_nothing_does_not_requeue(slurm, monkeypatch, told):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert finish(over(moved=False)) == 2
    assert "time limit of this job is too short" in told.text
    assert "min_runtime" in told.text
    assert finish(over(moved=False, late=True)) == 75
    assert not slurm.asked()


@pytest.mark.parametrize("by", deadline.SIGNALS)
def test_who_sends_a_signal_decides_about_the_next_start(slurm, monkeypatch, told, by):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert finish(over(why="signal", by=by)) == 75
    assert f"asked to stop ({by.name}): step 7 of 9" in told.text
    assert not slurm.asked()


def test_the_others_leave_the_requeue_to_the_first(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setattr(deadline, "WAIT_FOR_LEADER_S", 0)
    assert finish(over(leader=False)) == 75
    assert not slurm.asked()


def test_a_process_that_began_late_in_its_job_is_not_blamed(monkeypatch):
    clock = Clock()
    here = Here("5", 0, clock.now + 100, 3600)
    monkeypatch.setattr(deadline, "ask", lambda *_: here)
    life = Watch(here, clock=clock)
    with pytest.raises(ToBeContinuedError) as caught:
        life.check(200, "nothing done", moved=False)
    assert (caught.value.why, caught.value.late, caught.value.moved) == ("deadline", True, False)


SCRIPT = """
import sys, time
from fewscans import cli
from fewscans.cluster import deadline

def work(arguments, params):
    with deadline.watch() as life:
        for step in range(1, 10_000):
            time.sleep(0.01)
            if life.should_stop():
                life.stop(f"saved at step {step}", moved=step > 0)

sys.exit(cli.run(cli.parser("test"), work))
"""


def start(**env) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_real_process_requeues_and_is_ended_by_slurm(slurm):
    slurm.job(5, left_s=9, limit_s=60)
    process = start(SLURM_JOB_ID="5")
    told = []
    for line in process.stderr:
        told.append(line)
        if "job 5 is requeued" in line:
            process.terminate()
    assert process.wait() == -signal.SIGTERM, told
    assert slurm.asked("requeue") == ["requeue 5"]


def test_a_real_process_ends_with_75_where_it_cannot_requeue(slurm):
    slurm.job(5, left_s=9, limit_s=60)
    slurm.refuse()
    process = start(SLURM_JOB_ID="5")
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    assert "saved at step" in errors
    assert "To be continued" in errors


def test_exit_codes_are_documented():
    assert "75 to be" in (cli.__doc__ or "")
