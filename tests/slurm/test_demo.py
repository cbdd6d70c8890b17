"""The demo, shortened, on the cluster: killed, requeued and pushed out, it comes to the same table, byte for byte."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.slurm.runs import PATIENCE, Run, go_on, nothing_queued, pause, start
from tests.workflows import CONFIG, Clone, copy_clone, make_clone

TABLE = "results/ablation_table.csv"
CHECKPOINTS = "work/checkpoints"
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


def logs(clone: Clone) -> list[str]:
    return [path.read_text() for path in sorted(Path(clone.folder, "logs/pretrain").glob("*"))]


def ends_well(cluster, clone: Clone, table: str) -> None:
    assert clone.table() == table
    nothing_queued(cluster, clone.folder)
    assert not list(clone.folder.glob(f"{CHECKPOINTS}/*"))


def test_requeued_and_pushed_out(cluster, prepared, table, tmp_path):
    """One training is requeued, then both make room for an urgent job: each goes on where it was."""
    clone = copy_clone(prepared, tmp_path / "run")
    classes = {"cpu": {"partition": "cpu"}, "gpu": {"partition": "preempt"}}
    run = begin(cluster, clone, classes=classes)
    try:
        first, second = pause(clone.folder, CHECKPOINTS, 2)
        cluster.run(["scontrol", "requeue", first])
        cluster.push_out()
        said = run.succeeds()
    finally:
        run.kill()
    assert "Error in rule" not in said
    assert all("going on from step" in log for log in logs(clone))
    assert all(cluster.starts_of(job) >= 2 for job in (first, second))
    ends_well(cluster, clone, table)


def test_killed_and_started_again(cluster, prepared, table, tmp_path):
    """kill -9 of the main process while trainings run, and the same command again."""
    clone = copy_clone(prepared, tmp_path / "run")
    run = begin(cluster, clone)
    try:
        jobs = pause(clone.folder, CHECKPOINTS, 2)
        run.kill()
        run = begin(cluster, clone)
        run.says("waiting for them before anything is submitted")
        go_on(jobs.values())
        said = run.succeeds()
    finally:
        run.kill()
    assert "took over from a run that is gone" in said
    assert all(f"job {job} " in said for job in jobs)
    assert not any("going on from step" in log for log in logs(clone))  # they were waited for
    ends_well(cluster, clone, table)
