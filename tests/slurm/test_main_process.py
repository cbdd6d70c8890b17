"""What happens to the main process: killed with jobs in flight, interrupted, started twice."""

from __future__ import annotations

import os
import signal

from tests.slurm.processes import wait_until
from tests.slurm.runs import Toy


def test_killed_and_started_again_waits_for_its_jobs(cluster, tmp_path):
    toy = Toy(cluster, tmp_path / "run")
    toy.trouble("p0", "hold")
    toy.trouble("p1", "hold")
    run = toy.start()
    try:
        jobs = [toy.wait_for(name)[1] for name in ("p0", "p1")]
        run.kill()
        run = toy.start()
        run.says("waiting for them before anything is submitted")
        said = run.text
        assert "took over from a run that is gone" in said
        assert all(f"job {job}" in said for job in jobs)
        assert len(cluster.queue(toy.folder)) == 2  # nothing was submitted beside them
        toy.release("p0", "p1")
        run.succeeds()
    finally:
        run.kill()
    assert [len(toy.begun(name)) for name in ("p0", "p1")] == [1, 1]
    toy.ends_well()


def test_killed_and_started_again_cancels_its_jobs(cluster, tmp_path):
    toy = Toy(cluster, tmp_path / "run", site={"orphans": "cancel"})
    toy.trouble("p0", "hold")
    run = toy.start()
    try:
        _, job = toy.wait_for("p0")
        run.kill()
        toy.release("p0")
        # before it sees that it may go on: a held job looks five times a second
        os.kill(toy.begun("p0")[-1][0], signal.SIGSTOP)
        run = toy.start()
        said = run.succeeds()
    finally:
        run.kill()
    assert "they are cancelled (orphans: cancel)" in said
    wait_until("the end of the orphan", lambda: cluster.state_of(job) == "CANCELLED")
    toy.ends_well()


def test_an_orphan_that_nobody_knows_ends_badly_after_its_duplicate(cluster, tmp_path):
    """Slurm may lose what a job is; its outputs must stand all the same."""
    toy = Toy(cluster, tmp_path / "run")
    toy.trouble("p0", "hold")
    run = toy.start()
    try:
        pid, orphan = toy.wait_for("p0")
        run.kill()
        cluster.run(["scontrol", "update", f"jobid={orphan}", "comment=lost", "name=lost"])
        (toy.folder / "faults/p0").unlink()  # the duplicate has no trouble
        run = toy.start()
        run.succeeds()
        assert cluster.state_of(orphan) == "RUNNING"
        os.kill(pid, signal.SIGKILL)
        wait_until("its end", lambda: cluster.state_of(orphan) == "FAILED", 60)
    finally:
        run.kill()
    toy.ends_well()


def test_two_at_once(cluster, tmp_path):
    toy = Toy(cluster, tmp_path / "run")
    toy.trouble("p0", "hold")
    run = toy.start()
    try:
        _, job = toy.wait_for("p0")
        second = toy.start()
        said = second.fails(60)
        assert f"another run works in this folder: pid {run.process.pid} on " in said
        assert f"job {job}" in said
        assert f"kill -INT {run.process.pid}" in said
        toy.release("p0")
        run.succeeds()
    finally:
        run.kill()
    assert len(toy.begun("p0")) == 1
    toy.ends_well()


def test_interrupted(cluster, tmp_path):
    """Ctrl-C cancels the jobs; the same command goes on."""
    toy = Toy(cluster, tmp_path / "run")
    toy.trouble("p0", "hold")
    run = toy.start()
    try:
        toy.wait_for("p0")
        run.process.send_signal(signal.SIGINT)
        assert run.wait(90) != 0
        toy.nothing_queued()
        toy.release("p0")
        run = toy.start()
        run.succeeds()
    finally:
        run.kill()
    toy.ends_well()
