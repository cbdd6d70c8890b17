"""The demo, shortened, on the cluster: killed, requeued and pushed out, it comes to the same table, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.slurm.processes import wait_until
from tests.slurm.runs import PATIENCE, Run, start
from tests.workflows import CONFIG, Clone, copy_clone, make_clone

TABLE = "results/ablation_table.csv"
# Long enough to be met in the middle; a checkpoint after each step.
SIMCLR = {
    "method": "simclr", "backbone": "test_resnet", "epochs": 30, "batch_size": 8, "checkpoint_minutes": 1e-9,
}  # fmt: skip
DEMO = {**CONFIG, "encoders": {"simclr": SIMCLR}, "baselines": ["majority"], "budgets": ["6"]}


@pytest.fixture(scope="module")
def prepared(slurm_installed, tmp_path_factory) -> Clone:
    """The demo with its data ready, made here; what follows is to be done."""
    clone = make_clone(tmp_path_factory.mktemp("demo") / "data")
    clone.config(**DEMO)
    clone.run("--cores", "2", "data")
    return clone


@pytest.fixture(scope="module")
def table(prepared, tmp_path_factory) -> str:
    """The table of an undisturbed run."""
    clone = copy_clone(prepared, tmp_path_factory.mktemp("demo") / "undisturbed")
    clone.run("--cores", "2", TABLE)
    return clone.table()


def begin(cluster, clone: Clone, **site) -> Run:
    """Start the rest of the demo on the cluster."""
    path = cluster.site(clone.folder / "partitions.yaml", **site)
    command = [
        sys.executable, "-m", "snakemake", "--profile", str(clone.folder / "profiles/slurm"),
        *PATIENCE, TABLE,
    ]  # fmt: skip
    return start(cluster, clone.folder, command, {"FEWSCANS_SITE": str(path)})


def pause(clone: Clone) -> dict[str, int]:
    """Stop two trainings in the middle, each once it has written a checkpoint: id of the job -> process."""
    stopped: dict[str, int] = {}

    def two() -> bool:
        for state in clone.folder.glob("work/checkpoints/*/state.pt"):
            with contextlib.suppress(OSError, ValueError):
                owner = json.loads(state.with_name("lease.json").read_text())
                if owner["job_id"] not in stopped:
                    os.kill(owner["pid"], signal.SIGSTOP)
                    stopped[owner["job_id"]] = owner["pid"]
        return len(stopped) == 2

    wait_until("two trainings under way", two, 180)
    return stopped


def go_on(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def logs(clone: Clone) -> list[str]:
    return [path.read_text() for path in sorted(Path(clone.folder, "logs/pretrain").glob("*"))]


def ends_well(cluster, clone: Clone, table: str) -> None:
    assert clone.table() == table
    assert not cluster.queue(clone.folder)
    assert not list(clone.folder.glob("work/checkpoints/*"))


def test_requeued_and_pushed_out(cluster, prepared, table, tmp_path):
    """One training is requeued, then both make room for an urgent job: each goes on where it was."""
    clone = copy_clone(prepared, tmp_path / "run")
    classes = {"cpu": {"partition": "cpu"}, "gpu": {"partition": "preempt"}}
    run = begin(cluster, clone, classes=classes)
    try:
        first, second = pause(clone)
        cluster.run(["scontrol", "requeue", first])
        urgent = cluster.submit("true", "-p", "urgent", "-n1", f"-c{cluster.layout.cpus}")
        wait_until("the urgent job", lambda: cluster.state_of(urgent) == "COMPLETED")
        said = run.succeeds(300)
    finally:
        run.kill()
    assert "Error in rule" not in said
    assert all("going on from step" in log for log in logs(clone))
    assert all(starts(cluster, job) >= 2 for job in (first, second))
    ends_well(cluster, clone, table)


def starts(cluster, job: str) -> int:
    """How often a job began, by the accounts."""
    command = ["sacct", "-X", "-n", "-P", "--duplicates", "-j", job, "-o", "Start"]
    return len(cluster.run(command).stdout.split())


def test_killed_and_started_again(cluster, prepared, table, tmp_path):
    """kill -9 of the main process while trainings run, and the same command again."""
    clone = copy_clone(prepared, tmp_path / "run")
    run = begin(cluster, clone)
    try:
        jobs = pause(clone)
        run.kill()
        run = begin(cluster, clone)
        run.says("waiting for them before anything is submitted")
        go_on(jobs.values())
        said = run.succeeds(300)
    finally:
        run.kill()
    assert "took over from a run that is gone" in said
    assert all(f"job {job} " in said for job in jobs)
    assert not any("going on from step" in log for log in logs(clone))  # they were waited for
    ends_well(cluster, clone, table)
