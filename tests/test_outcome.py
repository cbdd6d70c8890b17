"""Why jobs ended, on what a real cluster said of them, and what the next attempt asks for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from fewscans.cluster import outcome
from fewscans.cluster.outcome import Row, classify, growth, read_accounts, read_controller

ENDINGS = yaml.safe_load((Path(__file__).parent / "data/slurm_endings.yaml").read_text())


@pytest.mark.parametrize("name", ENDINGS)
def test_every_recorded_ending_is_told(name):
    seen = ENDINGS[name]
    assert classify(read_accounts(seen["sacct"]), seen.get("log", "")) == seen["because"]


@pytest.mark.parametrize("name", [n for n in ENDINGS if "log" in ENDINGS[n]])
def test_the_log_alone_never_tells_another_story(name):
    """Where nobody can be asked any more: the same, or unknown, or merely failed."""
    seen = ENDINGS[name]
    found = classify([], seen["log"])
    if seen["because"] in ("time-out", "out-of-memory", "preempted"):
        assert found == seen["because"]
    elif "requeued" not in name:
        assert found in (seen["because"], "unknown")


@pytest.mark.parametrize(
    "name", [n for n in ENDINGS if n.startswith(("time", "memory, cgroup, b"))]
)
def test_states_alone_tell_time_and_memory(name):
    assert classify(read_accounts(ENDINGS[name]["sacct"])) == ENDINGS[name]["because"]


@pytest.mark.parametrize("name", [n for n in ENDINGS if n.startswith("memory, OverMemoryKill")])
def test_killed_with_its_memory_used_up_is_want_of_memory(name):
    assert classify(read_accounts(ENDINGS[name]["sacct"])) == "out-of-memory"


def test_a_full_card_is_no_want_of_memory():
    failed = [Row("1", "FAILED", 1)]
    assert classify(failed, "torch.OutOfMemoryError: CUDA out of memory. Tried to") == "failed"
    assert classify(failed, "  File 'x'\nMemoryError: Unable to allocate 3 GiB") == "out-of-memory"
    assert classify(failed, "RuntimeError: DefaultCPUAllocator: can't allocate memory") == (
        "out-of-memory"
    )


def test_75_reaches_us_through_the_snakemake_in_the_job():
    log = "Command 'set -euo pipefail;  python x.py' returned non-zero exit status 75."
    assert classify([Row("1", "FAILED", 1)], log) == "to-be-continued"
    assert classify([Row("1", "FAILED", 1)], log.replace("75", "1")) == "failed"


def test_an_earlier_start_in_the_same_log_is_not_this_one():
    log = "*** JOB 1 ON n1 CANCELLED AT 2026-11-23T20:44:22 DUE TO PREEMPTION ***\nKeyError: 'x'\n"
    assert classify([Row("1", "FAILED", 1)], log) == "failed"


def test_controller_is_read_where_there_are_no_accounts():
    assert classify(read_controller({"JobId": "6", "JobState": "TIMEOUT", "ExitCode": "0:15"})) == (
        "time-out"
    )
    assert read_controller({}) == []
    assert classify([]) == "unknown"


# -- growth ----------------------------------------------------------------------------------------

SACCT = """#!/bin/sh
for word in "$@"; do case "$word" in --jobs=*) job=${word#--jobs=};; esac; done
echo "$job" >> "$ASKED"
cat "$ANSWERS/$job" 2>/dev/null
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with logs of attempts, and a sacct that answers from files."""
    commands, answers = tmp_path / "bin", tmp_path / "answers"
    commands.mkdir()
    answers.mkdir()
    (commands / "sacct").write_text(SACCT)
    (commands / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    for name in ("sacct", "scontrol"):
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("ANSWERS", str(answers))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outcome, "_KNOWN", {})
    return Place(tmp_path)


class Place:
    """Writes what attempts leave behind, each a second after the one before."""

    def __init__(self, root: Path) -> None:
        self.root, self.second = root, time.time() - 1000

    def ended(self, job: int, name: str | None, folder="rule_train/a_0", log: str | None = None):
        path = self.root / ".snakemake/slurm_logs" / folder / f"{job}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = ENDINGS.get(name, {})
        path.write_text(log if log is not None else seen.get("log", ""))
        self.second += 1
        os.utime(path, (self.second, self.second))
        if name is not None:
            old = seen["sacct"].partition("|")[0]
            lines = [line.replace(old, str(job), 1) for line in seen["sacct"].splitlines()]
            (self.root / "answers" / str(job)).write_text("\n".join(lines) + "\n")

    def asked(self) -> list[str]:
        path = self.root / "asked"
        return path.read_text().split() if path.exists() else []


WILDCARDS = {"encoder": "a", "seed": "0"}


def test_grows_by_what_happened_and_by_nothing_else(place):
    place.ended(20, "time limit, through srun")
    assert growth("train", WILDCARDS, 1) == (1, 1)
    assert not place.asked()
    assert growth("train", WILDCARDS, 2) == (1.5, 1)
    place.ended(21, "memory, cgroup, through srun")
    assert growth("train", WILDCARDS, 3) == (1.5, 2)
    place.ended(22, "failed with 3")
    assert growth("train", WILDCARDS, 4) == (1.5, 2)
    place.ended(23, "time limit, batch step")
    assert growth("train", WILDCARDS, 5) == (2.25, 2)
    assert place.asked() == ["20", "21", "22", "23"]  # each once
    assert growth("train", {"encoder": "a", "seed": "1"}, 3) == (1, 1)


@pytest.mark.parametrize(
    "name", ["scancel", "node down, no requeue", "ended with 75 through srun", "failed with 3"]
)
def test_other_ends_ask_for_the_same_again(place, name):
    place.ended(7, name)
    assert growth("train", WILDCARDS, 2) == (1, 1)


def test_attempts_of_an_earlier_run_of_the_workflow_do_not_count(place):
    place.ended(20, "time limit, through srun")
    place.ended(31, "failed with 3")
    assert growth("train", WILDCARDS, 2) == (1, 1)


def test_members_of_a_group_are_found_in_its_log(place):
    told = "    rule train:\n        output: x\n        wildcards: encoder=a, seed=0\n\n"
    other = told.replace("seed=0", "seed=1")
    cause = ENDINGS["time limit, through srun"]["log"]
    place.ended(40, "time limit, through srun", "group_pack", other + told + cause)
    place.ended(41, "failed with 3", "group_pack", other)
    assert growth("train", WILDCARDS, 2) == (1.5, 1)
    assert growth("train", {"encoder": "b", "seed": "0"}, 2) == (1, 1)


def test_the_log_is_enough_where_slurm_is_silent(place):
    place.ended(5, None, log=ENDINGS["memory, OverMemoryKill, through srun"]["log"])
    assert growth("train", WILDCARDS, 2) == (1, 2)
    place.ended(6, None, log="")
    assert growth("train", WILDCARDS, 2) == (1, 1)
    assert "6" not in outcome._KNOWN  # perhaps it answers next time


def test_a_job_does_not_ask_about_itself(place, monkeypatch):
    place.ended(20, "time limit, through srun")
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    assert growth("train", WILDCARDS, 2) == (1, 1)
    assert not place.asked()


def test_never_raises(place, monkeypatch):
    assert growth("nothing", WILDCARDS, 2) == (1, 1)
    place.ended(20, "time limit, through srun")
    (place.root / "answers/20").write_text("nonsense\n")
    assert growth("train", WILDCARDS, 2) == (1.5, 1)  # the log says it
    monkeypatch.setattr(outcome, "ask", lambda job: 1 / 0)
    monkeypatch.setattr(outcome, "_KNOWN", {})
    assert growth("train", WILDCARDS, 2) == (1, 1)
