"""What happens to the main process: killed with jobs in flight, interrupted, started twice."""

from __future__ import annotations

import os
import signal

from tests.slurm.processes import wait_until
from tests.slurm.runs import nothing_queued


def test_killed_and_started_again_waits_for_its_jobs(cluster, toy):
    run, jobs = toy.start_held("p0", "p1")
    run.kill()
    again = toy.start()
    again.says("Not to wait: scancel")  # the last line about them
    said = again.text
    assert "took over from a run that is gone" in said
    assert "waiting for them before anything is submitted" in said
    assert all(f"job {job}" in said for job in jobs.values())
    assert len(cluster.queue(toy.folder)) == 2  # nothing was submitted beside them
    toy.release(*jobs)
    again.succeeds()
    assert [len(toy.begun(name)) for name in jobs] == [1, 1]
    toy.ends_well()


def test_killed_and_started_again_cancels_its_jobs(cluster, toy):
    toy.site = {"orphans": "cancel"}
    run, jobs = toy.start_held("p0")
    run.kill()
    os.kill(toy.begun("p0")[0][0], signal.SIGSTOP)  # it does not see that it may go on
    toy.release("p0")
    said = toy.start().succeeds()
    assert "they are cancelled (orphans: cancel)" in said
    wait_until("the end of the orphan", lambda: cluster.state_of(jobs["p0"]) == "CANCELLED")
    toy.ends_well()


def test_an_orphan_that_nobody_knows_ends_badly_after_its_duplicate(cluster, toy):
    """Slurm may lose what a job is; its outputs must stand all the same."""
    run, jobs = toy.start_held("p0")
    orphan, pid = jobs["p0"], toy.begun("p0")[0][0]
    run.kill()
    cluster.run(["scontrol", "update", f"jobid={orphan}", "comment=lost", "name=lost"])
    (toy.folder / "faults/p0").unlink()  # the duplicate has no trouble
    toy.start().succeeds()
    assert cluster.state_of(orphan) == "RUNNING"
    os.kill(pid, signal.SIGKILL)
    wait_until("its end", lambda: cluster.state_of(orphan) == "FAILED")
    toy.ends_well()


def test_two_at_once(toy):
    run, jobs = toy.start_held("p0")
    said = toy.start().fails()
    assert f"another run works in this folder: pid {run.process.pid} on " in said
    assert f"job {jobs['p0']}" in said
    assert f"kill -INT {run.process.pid}" in said
    toy.release("p0")
    run.succeeds()
    assert len(toy.begun("p0")) == 1
    toy.ends_well()


def test_interrupted(cluster, toy):
    """Ctrl-C cancels the jobs, also while Snakemake asks for them; the same command goes on."""
    asked = toy.folder / "asked"
    slow = toy.folder / "bin/sacct"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch {asked}\nsleep 3\nexec {cluster.state}/bin/sacct "$@"\n')
    slow.chmod(0o755)
    run, _ = toy.start_held("p0", PATH=f"{slow.parent}:{cluster.environment()['PATH']}")
    asked.unlink(missing_ok=True)
    wait_until("a look at the jobs", asked.exists)
    run.process.send_signal(signal.SIGINT)
    run.fails()
    nothing_queued(cluster, toy.folder)
    toy.release("p0")
    toy.start().succeeds()
    toy.ends_well()
