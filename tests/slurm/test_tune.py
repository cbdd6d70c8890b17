"""Searches whose trials are jobs: requeued, cancelled from outside, interrupted; the trials stay the same."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from labelled_factory import make_tiny

from fewscans.contracts import read_table
from tests.slurm.processes import wait_until
from tests.slurm.runs import LONG_S, ROOT, Run, go_on, pause, start

PARAMS = {
    "encoder": "simclr", "recipe": {"size": 16}, "recipe_name": "small", "dataset": "tiny",
    "fold": "0", "trials": 2, "parallel": 2, "max_steps": 5000, "compute": {"device": "cpu"},
    "settings": {
        "method": "simclr", "backbone": "test_resnet", "epochs": 100, "batch_size": 8,
        "checkpoint_minutes": 0.005,
    },
    "arm": {"encoder": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}},
    "protocol_settings": {},
}  # fmt: skip


class Place:
    """A search of seconds beside a cluster."""

    def __init__(self, cluster, root: Path, data: dict[str, Path], params: dict = PARAMS) -> None:
        self.cluster, self.root, self.params = cluster, root, params
        self.out = root / "out"
        files = [
            text
            for name in ("store", "labels", "folds", "budgets")
            for text in (f"--{name}", str(data[name]))
        ]
        self.command = [
            sys.executable, str(ROOT / "scripts/tune.py"), "--params", json.dumps(params), *files,
            "--out", str(self.out), "--cores", "2", "--minutes", "10", "--mem-mb", "1000",
            "--poll-s", "0.5",
        ]  # fmt: skip
        root.mkdir(exist_ok=True)
        site = cluster.site(root / "partitions.yaml")
        self.variables = {"PYTHONPATH": str(ROOT), "FEWSCANS_SITE": str(site)}

    @contextlib.contextmanager
    def started(self) -> Iterator[Run]:
        run = start(self.cluster, self.root, self.command, self.variables)
        try:
            yield run
        finally:
            run.kill()

    def jobs(self) -> dict[int, str]:
        """Trial -> job id, of jobs in the queue."""
        return {
            int(job["comment"].rpartition("_")[2]): job["id"]
            for job in self.cluster.queue(self.root)
            if job["name"] == "fewscans-tune"
        }

    def pause(self) -> tuple[dict[int, str], dict[str, int]]:
        """Both trials stopped in the middle: trial -> job, job -> process."""
        pids = pause(self.out, "*/trials/*/checkpoints", 2)
        return self.jobs(), pids

    def log(self, trial: int) -> str:
        (found,) = self.out.glob(f"*/trials/{trial}/trial.log")
        return found.read_text()

    def trials(self) -> pd.DataFrame:
        return read_table(self.out / "trials.parquet", "trials").drop(columns="seconds")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(cluster, data, tmp_path_factory) -> Place:
    """The same search, its trials as processes here."""
    place = Place(cluster, tmp_path_factory.mktemp("undisturbed"), data)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(place.command, cwd=place.root, env=here, check=True, capture_output=True)
    return place


def test_led_by_a_job_with_trials_warned_and_killed(cluster, data, undisturbed, tmp_path):
    """One trial is told that its time is over (as submitit has Slurm do it), one is cancelled behind our back."""
    place = Place(cluster, tmp_path / "work", data)
    script = f"cd {shlex.quote(str(place.root))} && {shlex.join(place.command)} > leader.log 2>&1"
    leader = subprocess.run(
        ["sbatch", "--parsable", "-p", "cpu", "-A", "proj", "--mem=1000", "-c2", "-t30", "-o", "/dev/null",
         "-D", str(place.root), "--wrap", script],
        env=cluster.environment(**place.variables), check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    jobs, pids = place.pause()
    cluster.run(["scancel", "--signal=USR2", jobs[0]])
    cluster.run(["scancel", jobs[1]])
    go_on([pids[jobs[0]]])
    wait_until(
        "the leader's end", lambda: cluster.state_of(leader) not in ("RUNNING", "PENDING"), LONG_S
    )
    said = (place.root / "leader.log").read_text()
    assert cluster.state_of(leader) == "COMPLETED", said
    assert "trial 1 ended without a result; starting it again" in said
    assert "trial 0 ended" not in said  # requeued: the same job went on
    assert "going on from step" in place.log(0)
    assert "going on from step" in place.log(1)
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
    wait_until("the end of the last job", lambda: not place.jobs())


def test_requeued_by_slurm_and_interrupted(cluster, data, undisturbed, tmp_path):
    """Requeued as after a preemption; then Ctrl-C takes the trials out of the queue, and the same command ends well."""
    place = Place(cluster, tmp_path / "work", data)
    with place.started() as run:
        jobs, _ = place.pause()
        cluster.run(["scontrol", "requeue", jobs[0]])
        wait_until("a second start", lambda: "going on from step" in place.log(0))
        # the other one is held, so the search has not ended
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.text
    assert "the same command goes on from here" in run.text
    wait_until("the end of its trials", lambda: not place.jobs())
    assert cluster.starts_of(jobs[0]) == 2
    with place.started() as run:
        run.succeeds()
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
    wait_until("the end of the last job", lambda: not place.jobs())


def test_killed_leader_finds_its_jobs_again(cluster, data, undisturbed, tmp_path):
    place = Place(cluster, tmp_path / "work", data)
    with place.started() as run:
        jobs, pids = place.pause()
    assert place.jobs() == jobs
    with place.started() as run:
        go_on(pids.values())
        said = run.succeeds()
    assert "is job" not in said  # none was submitted a second time
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
