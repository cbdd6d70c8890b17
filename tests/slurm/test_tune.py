"""Searches whose trials are jobs: requeued, cancelled from outside, interrupted; the trials stay the same."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from labelled_factory import make_tiny

from fewscans.contracts import read_table
from tests.slurm.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
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
        self.site = cluster.site(root / "partitions.yaml")

    def environment(self, **more: str) -> dict[str, str]:
        return self.cluster.environment(PYTHONPATH=str(ROOT), FEWSCANS_SITE=str(self.site), **more)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, cwd=self.root, env=self.environment(), stderr=subprocess.PIPE, text=True
        )

    def jobs(self) -> dict[int, str]:
        """Trial -> job id, of jobs in the queue."""
        return {
            int(job["comment"].rpartition("_")[2]): job["id"]
            for job in self.cluster.queue(self.root)
            if job["name"] == "fewscans-tune"
        }

    def wait_for_state(self, trial: int) -> None:
        pattern = f"*/trials/{trial}/checkpoints/*/state.pt"
        wait_until(f"a checkpoint of trial {trial}", lambda: list(self.out.glob(pattern)), 120)

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
    local = {k: v for k, v in place.environment().items() if k != "FEWSCANS_SITE"}
    subprocess.run(place.command, cwd=place.root, env=local, check=True, capture_output=True)
    return place


def test_led_by_a_job_with_trials_warned_and_killed(cluster, data, undisturbed, tmp_path):
    """One trial is told that its time is over (as submitit has Slurm do it), one is cancelled behind our back."""
    place = Place(cluster, tmp_path / "work", data)
    script = f"cd {shlex.quote(str(place.root))} && {shlex.join(place.command)} > leader.log 2>&1"
    leader = subprocess.run(
        ["sbatch", "--parsable", "-p", "cpu", "-A", "proj", "--mem=1000", "-c2", "-t5", "-o", "/dev/null",
         "-D", str(place.root), "--wrap", script],
        env=place.environment(), check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    place.wait_for_state(0)
    place.wait_for_state(1)
    before = place.jobs()
    cluster.run(["scancel", "--signal=USR2", before[0]])
    cluster.run(["scancel", before[1]])
    wait_until("the leader's end", lambda: cluster.state_of(leader) not in ("RUNNING", "PENDING"), 240)  # fmt: skip
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
    process = place.start()
    place.wait_for_state(0)
    job = place.jobs()[0]
    cluster.run(["scontrol", "requeue", job])
    wait_until("a second start", lambda: place.log(0).count("going on from step") == 1, 120)
    assert place.jobs()[0] == job
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 130, said
    assert "the same command goes on from here" in said
    assert not place.jobs()
    again = place.start()
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
    wait_until("the end of the last job", lambda: not place.jobs())


def test_killed_leader_finds_its_jobs_again(cluster, data, undisturbed, tmp_path):
    place = Place(cluster, tmp_path / "work", data)
    process = place.start()
    place.wait_for_state(0)
    before = place.jobs()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert place.jobs() == before
    again = place.start()
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said
    assert "is job" not in said  # none was submitted a second time
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
