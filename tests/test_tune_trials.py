"""Where trials run, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from labelled_factory import make_tiny
from tune_factory import ROOT, Here, Place, make_params

from fewscans.cluster.site import Site, current_site
from fewscans.cluster.slurm import SlurmError
from fewscans.errors import UserError
from fewscans.runrecord import is_alive
from fewscans.tune import status, submit


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def place(tmp_path, tiny, script) -> Place:
    return Place(tmp_path, tiny, script)


def test_without_sbatch_the_way_out_is_said(place, tmp_path, monkeypatch, capsys):
    site = tmp_path / "partitions.yaml"
    site.write_text("partitions: {gpu: {max_gpu: 1, default: true}}")
    monkeypatch.setenv("FEWSCANS_SITE", str(site))
    monkeypatch.setenv("PATH", str(tmp_path))
    current_site.cache_clear()
    try:
        assert place.script("tune").main(place.arguments(make_params())) == 2
    finally:
        current_site.cache_clear()
    assert "there is no sbatch here" in capsys.readouterr().err


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A Slurm whose queue is empty, and which takes no job."""
    folder = tmp_path / "commands"
    folder.mkdir()
    said = {"squeue": "", "srun": "", "sbatch": "echo 'error: Invalid account' >&2; exit 1"}
    for name, line in said.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def make_jobs(folder, **site) -> submit.Jobs:
    return submit.Jobs(Site.model_validate(site), folder, 2, minutes=600, mem_mb=900, threads=3, gpu=True)  # fmt: skip


def test_a_job_that_slurm_refuses_ends_the_search_in_its_words(tmp_path, commands):
    jobs = make_jobs(tmp_path, partitions={"gpu": {"max_gpu": 1}})
    with pytest.raises(UserError, match="trial 3 cannot be submitted: error: Invalid account"):
        jobs.start(3, ["true"], tmp_path)
    assert not (tmp_path / status.JOB).exists()


def test_a_controller_that_is_away_for_a_moment_ends_no_search(place):
    class Away(Here):
        def start(self, number, command, folder):
            if number not in self.started:
                self.started.append(number)
                raise SlurmError(["squeue"], "Unable to contact slurm controller")
            super().start(number, command, folder)

    away = Away(place.script("tune"), place.arguments(make_params(trials=2)))
    assert place.search(make_params(trials=2), launcher=away) == 0
    assert away.started == [0, 1, 0, 1]


@pytest.mark.parametrize("request_by", ["gpus", "gres"])
def test_a_trial_s_job_asks_for_what_the_site_wants(tmp_path, commands, request_by):
    jobs = make_jobs(
        tmp_path, account="proj", gpu_request=request_by, modules=["cuda"], reservation="mine",
        classes={"gpu": {"partition": "big", "gpu_model": "a100", "qos": "high", "extra": "-w n2"}},
        partitions={"big": {"max_runtime": 30, "max_gpu": 4}},
    )  # fmt: skip
    asked = jobs.parameters(7)
    more = asked.pop("slurm_additional_parameters")
    assert (asked["timeout_min"], asked["cpus_per_task"], asked["slurm_mem"]) == (30, 3, "900MB")
    named = [asked[f"slurm_{name}"] for name in ("partition", "account", "qos")]
    assert named == ["big", "proj", "high"]
    assert asked["slurm_comment"] == f"tune_{jobs.mark}_7"
    assert asked["slurm_setup"] == ["#SBATCH -w n2", "module load cuda"]
    assert more["reservation"] == "mine"
    assert ("gpus" in more, "slurm_gres" in asked) == (request_by == "gpus", request_by == "gres")
    assert "a100:1" in (more.get("gpus") or asked["slurm_gres"])
    text = jobs._executor(tmp_path, 7)._executor._make_submission_file_text("run", "uid")
    assert "#SBATCH --requeue" in text
    assert text.index("#SBATCH -w n2") < text.index("module load cuda") < text.index("srun")


# -- kills -----------------------------------------------------------------------------------------


def start(place: Place, params: dict, out: str = "out") -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts/tune.py"), *place.arguments(params, out)]
    return subprocess.Popen(
        [*command, "--cores", "2", "--poll-s", "0.1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(what, process: subprocess.Popen | None = None, timeout: float = 120):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def running_trials(place: Place, out: str = "out") -> list[dict]:
    jobs = [json.loads(p.read_text()) for p in (place.root / out).glob("*/trials/*/job.json")]
    return [job for job in jobs if is_alive(job["pid"], job["start"])]


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory, script_of_module):
    place = Place(tmp_path_factory.mktemp("undisturbed"), tiny, script_of_module)
    assert place.search(LONG) == 0
    return place


@pytest.fixture(scope="module")
def script_of_module():
    import importlib.util

    def load_script(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_script


LONG = make_params(
    "simclr",
    trials=4,
    max_steps=1000,
    settings={
        "method": "simclr", "backbone": "test_resnet", "epochs": 40, "batch_size": 8,
        "checkpoint_minutes": 0.005,
    },
)  # fmt: skip


@pytest.mark.slow
def test_killed_leader_and_trial_the_same_command_goes_on(place, undisturbed):
    """The leader by -9, then one of its trials by -9: the other is found again, the dead one started again."""
    process = start(place, LONG)
    state = lambda: list((place.root / "out").glob("*/trials/0/checkpoints/*/state.pt"))  # noqa: E731
    wait_for(state, process)
    (job,) = (place.root / "out").glob("*/trials/0/job.json")
    trial = json.loads(job.read_text())["pid"]
    os.kill(trial, signal.SIGSTOP)  # so that it is not done before it is killed
    process.kill()
    process.wait()
    assert trial in [one["pid"] for one in running_trials(place)]  # it does not need its leader
    os.kill(trial, signal.SIGKILL)
    assert state()
    again = start(place, LONG)
    assert again.wait(240) == 0, again.stderr.read()
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
    assert place.best()["values"] == undisturbed.best()["values"]
    assert "going on from step" in (job.parent / "trial.log").read_text()
    wait_for(lambda: not running_trials(place))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_trials_are_cancelled_and_can_go_on(place, number):
    process = start(place, LONG)
    states = lambda: list((place.root / "out").glob("*/trials/*/checkpoints/*/state.pt"))  # noqa: E731
    wait_for(states, process)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert "the same command goes on from here" in process.stderr.read()
    assert not running_trials(place)
    assert states()  # what they had done is kept
    found = status.read(place.journal().parent)
    assert not found.finished
    assert found.counts["done"] == 0


def test_a_trial_of_other_code_is_refused(place, capsys):
    assert place.search(make_params(trials=2)) == 0
    other = place.arguments(make_params(trials=2, base_seed=1))
    assert place.script("tune").main([*other, "--trial", "0"]) == 2
    assert "have changed since it began: run it again" in capsys.readouterr().err
