"""Jobs that Slurm itself starts again, or pushes out for good."""

from __future__ import annotations

from tests.slurm.processes import wait_until
from tests.slurm.runs import nothing_queued


def test_requeued_preempted_and_on_a_node_that_died(cluster, toy):
    """The same job starts again, from its beginning, and Snakemake follows it."""
    toy.parts, toy.settings = 3, {"where": "p1:preempt,p2:frail"}
    run, jobs = toy.start_held("p0", "p1", "p2")
    cluster.run(["scontrol", "requeue", str(jobs["p0"])])
    cluster.push_out()
    cluster.node_down("frail")
    wait_until("its requeue", lambda: cluster.state_of(jobs["p2"]) == "PENDING")
    cluster.node_up("frail")
    for name in jobs:
        assert toy.wait_for(name, starts=2)[1] == jobs[name]
    toy.release(*jobs)
    said = run.succeeds()
    assert "Error in rule" not in said
    toy.ends_well()


def test_pushed_out_for_good(cluster, toy):
    """Snakemake would wait for ever; the watchdog ends the run, and the same command ends it well."""
    toy.settings = {"where": "p0:cancel"}
    # Two looks must agree; Snakemake itself looks several times before the second one.
    run, jobs = toy.start_held("p0", FEWSCANS_LOOK_S="25", FEWSCANS_GRACE_S="60")
    cluster.push_out()
    wait_until("its end", lambda: cluster.state_of(jobs["p0"]) == "PREEMPTED")
    said = run.fails()
    assert f"job {jobs['p0']} (rule part" in said
    assert "PREEMPTED" in said
    assert "repeat the command" in said
    nothing_queued(cluster, toy.folder)
    toy.release("p0")
    toy.start().succeeds()
    toy.ends_well()
