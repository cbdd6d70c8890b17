"""Whose training it is: owners that Slurm knows to have ended, members of one job, silence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_fakes import fake_slurm

from fewscans import lease as keeping
from fewscans.cluster import deadline
from fewscans.lease import Lease

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    with fake_slurm(tmp_path / "slurm", monkeypatch) as made:
        yield made


def owned(folder: Path, *, silent_s: float = 120, **facts) -> Lease:
    """A lease that another host has taken, without a heartbeat for so long."""
    old = Lease(folder)
    assert old.take() is None
    old._stop.set()
    told = {**json.loads(old.path.read_text()), "host": "elsewhere", "token": "theirs", **facts}
    old.path.write_text(json.dumps(told))
    os.utime(old.path, (time.time() - silent_s,) * 2)
    return Lease(folder)


@pytest.mark.parametrize("state", ["COMPLETED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "PENDING"])
def test_an_owner_whose_job_has_ended_is_dead(slurm, tmp_path, state):
    slurm.job(7, JobState=state)
    new = owned(tmp_path / "x", job_id="7", restarts=0)
    assert new.take() is None
    new.release()


def test_an_owner_whose_job_slurm_does_not_know_is_dead(slurm, tmp_path):
    new = owned(tmp_path / "x", job_id="7", restarts=0)
    assert new.take() is None
    new.release()


def test_an_owner_whose_job_runs_is_waited_for(slurm, tmp_path):
    slurm.job(7)
    new = owned(tmp_path / "x", job_id="7", restarts=0)
    assert "elsewhere" in new.take()
    assert new.take() is not None
    assert len(slurm.asked()) == 1  # not at each look
    assert owned_again(slurm, tmp_path / "y", Restarts=1).take() is None


def owned_again(slurm, folder: Path, **facts) -> Lease:
    """The owner's job runs, in a later start than the owner."""
    slurm.job(7, **facts)
    return owned(folder, job_id="7", restarts=0)


def test_nobody_is_asked_while_the_owner_gives_signs_of_life(slurm, tmp_path):
    new = owned(tmp_path / "x", silent_s=30, job_id="7", restarts=0)
    assert "elsewhere" in new.take()
    assert not slurm.asked()


def test_no_answer_means_to_wait(slurm, tmp_path, monkeypatch):
    other = owned(tmp_path / "y", job_id="7", restarts=0, cluster="another")
    assert "elsewhere" in other.take()  # ids of another cluster are none of ours
    assert not slurm.asked()
    new = owned(tmp_path / "x", job_id="7", restarts=0)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "elsewhere" in new.take()


def test_a_requeued_job_takes_over_from_its_earlier_start_at_once(slurm, tmp_path, monkeypatch):
    slurm.job(7, Restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    deadline.here.cache_clear()
    new = owned(tmp_path / "x", silent_s=0, job_id="7", restarts=0)
    assert new.take() is None
    assert json.loads(new.path.read_text())["restarts"] == 1
    new.release()
    # Of the same start, on another node of the job: alive, however silent.
    fellow = owned(tmp_path / "y", job_id="7", restarts=1)
    assert "elsewhere" in fellow.take()


def test_members_of_one_job_on_one_host_are_told_apart_by_process(slurm, tmp_path, monkeypatch):
    slurm.job(7)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    deadline.here.cache_clear()
    code = (
        "import sys; from fewscans.lease import Lease; lease = Lease(sys.argv[1]); lease.take(); "
        "print('taken', flush=True); sys.stdin.read()"
    )
    member = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert member.stdout.readline() == "taken\n"
    lease = Lease(tmp_path / "x")
    assert f"{socket.gethostname()}" in lease.take()
    member.kill()
    member.communicate()
    assert lease.take() is None
    lease.release()
    assert keeping.ASK_AFTER_S > 2 * keeping.HEARTBEAT_S
