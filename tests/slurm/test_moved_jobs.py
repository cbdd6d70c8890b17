"""Jobs that Slurm itself starts again, or pushes out for good."""

from __future__ import annotations

import pytest

from tests.slurm.processes import wait_until
from tests.slurm.runs import Toy


def pushed_out(cluster) -> None:
    """An urgent job needs the whole node for preemption, for a moment."""
    urgent = cluster.submit("true", "-p", "urgent", "-n1", f"-c{cluster.layout.cpus}")
    wait_until("the urgent job", lambda: cluster.state_of(urgent) == "COMPLETED")


def test_requeued_preempted_and_on_a_node_that_died(cluster, tmp_path):
    """The same job starts again, from its beginning, and Snakemake follows it."""
    toy = Toy(cluster, tmp_path / "run", parts=3, settings={"where": "p1:preempt,p2:frail"})
    for name in ("p0", "p1", "p2"):
        toy.trouble(name, "hold")
    run = toy.start()
    try:
        jobs = {name: toy.wait_for(name)[1] for name in ("p0", "p1", "p2")}
        cluster.run(["scontrol", "requeue", str(jobs["p0"])])
        pushed_out(cluster)
        cluster.node_down("frail")
        wait_until("its requeue", lambda: cluster.state_of(jobs["p2"]) == "PENDING")
        cluster.node_up("frail")
        for name in jobs:
            assert toy.wait_for(name, starts=2)[1] == jobs[name]
        toy.release(*jobs)
        said = run.succeeds()
    finally:
        run.kill()
    assert "Error in rule" not in said
    toy.ends_well()


def test_pushed_out_for_good(cluster, tmp_path):
    """Snakemake would wait for ever; the watchdog ends the run, and the same command ends it well."""
    toy = Toy(cluster, tmp_path / "run", settings={"where": "p0:cancel"})
    toy.trouble("p0", "hold")
    # Two looks must agree; Snakemake itself looks several times before the second one.
    run = toy.start(FEWSCANS_LOOK_S="25", FEWSCANS_GRACE_S="60")
    try:
        _, job = toy.wait_for("p0")
        pushed_out(cluster)
        if cluster.state_of(job) != "PREEMPTED":  # asked for requeue, it may get one
            pytest.fail(f"job {job} is {cluster.state_of(job)}")
        said = run.fails()
        assert f"job {job} (rule part" in said
        assert "PREEMPTED" in said
        assert "repeat the command" in said
        toy.nothing_queued()
        toy.release("p0")
        run = toy.start()
        run.succeeds()
    finally:
        run.kill()
    toy.ends_well()
