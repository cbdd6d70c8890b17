"""The test cluster itself: jobs run, nodes come and go, nothing is left behind and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from fewscans.cluster.site import read_site
from fewscans.runrecord import process_start
from tests.slurm.cluster import Cluster, missing
from tests.slurm.processes import Daemons, wait_until

# Longer than any test, and ended by it.
LONG = "sleep 1200"


# States that a job of these tests does not leave again.
ENDED = {"COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED"}


def ends_as(cluster, job, state):
    seen: list[str] = []

    def reached():
        seen.append(cluster.state_of(job))
        assert seen[-1] == state or seen[-1] not in ENDED, seen
        return seen[-1] == state

    wait_until(f"job {job} {state}", reached)


def fields(cluster, job) -> dict[str, str]:
    text = cluster.run(["scontrol", "show", "job", str(job), "-o"]).stdout
    return dict(word.partition("=")[::2] for word in text.split())


def test_a_job_ends_and_is_accounted_for(cluster):
    job = cluster.submit("exit 3", "-A", "proj", "--comment", "rule_toy")
    ends_as(cluster, job, "FAILED")
    line = ["sacct", "-X", "-n", "-P", "-j", str(job), "-o", "Account,ExitCode,Comment"]
    wait_until("accounting", lambda: cluster.run(line).stdout.strip() == "proj|3:0|rule_toy")


def test_two_nodes_at_once_without_knowing_slurm_conf(cluster):
    """As in a job of Snakemake, where SLURM_CONF is gone."""
    environment = {k: v for k, v in cluster.environment().items() if k != "SLURM_CONF"}
    done = subprocess.run(
        ["srun", "-N2", "-n2", "sh", "-c", "echo $SLURMD_NODENAME"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(set(done.stdout.split())) == 2


def test_gpus_on_more_than_one_node(cluster):
    command = ["srun", "-p", "gpu", "-N2", "-n2", "--gpus-per-node=fake:1"]
    done = cluster.run([*command, "sh", "-c", "echo $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES"])
    assert sorted(done.stdout.split()) == [f"{node}:0" for node in cluster.layout.gpu]


def test_site_file_says_what_slurm_says(cluster, tmp_path):
    site = read_site(cluster.site(tmp_path / "partitions.yaml", orphans="cancel"))
    assert site.orphans == "cancel"
    said = cluster.run(["sinfo", "-h", "-o", "%R|%l|%c|%m|%D|%G"]).stdout
    gpus = dict.fromkeys(site.partitions, 0)
    for line in said.splitlines():
        name, _, cpus, memory, nodes, gres = line.split("|")
        found = site.partitions[name]
        assert (found.max_threads, found.max_mem_mb) == (int(cpus), int(memory))
        gpus[name] += 2 * int(nodes) if gres.startswith("gpu:fake:2") else 0
    assert site.partitions["gpu"].total_gpu == gpus["gpu"] == 4
    assert site.partitions["short"].max_runtime == 1
    preempt = {name: found.preempt for name, found in site.partitions.items()}
    assert preempt["preempt"] == "requeue"
    assert preempt["cancel"] == "cancel"
    kind = site.partition("gpu")
    assert kind is not None
    assert kind.gpu_models == ["fake"]


@pytest.mark.parametrize("partition", ["preempt", "cancel"])
def test_an_urgent_job_pushes_out_another(cluster, partition):
    job = cluster.submit(LONG, "-p", partition, "-n1", f"-c{cluster.layout.cpus}")
    ends_as(cluster, job, "RUNNING")
    cluster.push_out()
    if partition == "cancel":
        ends_as(cluster, job, "PREEMPTED")
    else:
        ends_as(cluster, job, "RUNNING")
        assert fields(cluster, job)["Restarts"] == "1"
        cluster.run(["scancel", str(job)])
        ends_as(cluster, job, "CANCELLED")


def test_a_node_dies_and_comes_back(cluster):
    job = cluster.submit(LONG, "-p", "frail", "--no-requeue")
    ends_as(cluster, job, "RUNNING")
    wait_until("its processes", lambda: cluster.processes("frail"))
    cluster.node_down("frail")
    ends_as(cluster, job, "NODE_FAIL")
    assert not cluster.processes("frail")
    cluster.node_up("frail")
    assert (
        cluster.run(["srun", "-p", "frail", "sh", "-c", "echo $SLURMD_NODENAME"]).stdout
        == "frail\n"
    )


def test_jobs_outlive_the_controller(cluster):
    # Long enough to end after a short outage: a step that ends meanwhile is heard of again after 60 s only.
    job = cluster.submit("sleep 12")
    ends_as(cluster, job, "RUNNING")
    cluster.stop_ctld()
    assert cluster.run(["squeue"], check=False).returncode != 0
    cluster.start_ctld()
    ends_as(cluster, job, "COMPLETED")


def test_nothing_is_left_of_a_stopped_cluster(slurm_installed):
    made = Cluster(nodes=1, accounting=False)
    with made:
        made.submit(f"{LONG} & {LONG}")
        wait_until("its processes", lambda: len(made.processes()) > 2)
        daemons = {pid for pid, _, _ in made.daemons._known.values()}
        starts = {pid: process_start(pid) for pid in made.processes() | daemons}
    assert not made.state.exists()
    assert not made.processes()
    for pid, start in starts.items():
        # None where it had ended when it was asked
        wait_until(f"end of {pid}", lambda p=pid, s=start: s is None or process_start(p) != s)
    made.stop()  # once more does no harm


def test_two_clusters_do_not_meet(cluster):
    with Cluster(nodes=1, accounting=False) as other:
        here = cluster.submit(LONG)
        ends_as(cluster, here, "RUNNING")
        assert other.queue() == []
        other.submit("true")
        other.node_down("n1")
    assert cluster.state_of(here) == "RUNNING"
    cluster.run(["scancel", str(here)])
    ends_as(cluster, here, "CANCELLED")


def test_a_pid_that_another_process_has_is_left_alone(tmp_path):
    daemons = Daemons(tmp_path)
    daemons.start("one", ["sleep", "60"], dict(os.environ))
    pid, _, made = daemons._known["one"]
    daemons._known["one"] = (pid, "1", made)  # as if the pid had been given out again
    daemons.end("one", signal.SIGKILL)
    assert process_start(pid) is not None
    made.kill()
    made.wait()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("tests.slurm.cluster.program", lambda name: "")
    assert "slurm-client" in missing(accounting=False)
    assert "mariadb-server" in missing()
    assert "mariadb-server" not in missing(accounting=False)
