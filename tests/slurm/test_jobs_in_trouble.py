"""What happens to single jobs, several at once in one run: each is made good by its next start."""

from __future__ import annotations

import os
import signal

import pytest

from tests.slurm.processes import wait_until
from tests.slurm.runs import Toy

KILLED, HUNGRY, CANCELLED, HALF, TORN, FAILING, LATE, LAST = (f"p{i}" for i in range(8))


@pytest.fixture(scope="module")
def troubled(cluster, tmp_path_factory):
    """(toy, what its run said) of a run in which seven of eight parts get into trouble once."""
    folder = tmp_path_factory.mktemp("trouble") / "run"
    with Toy(cluster, folder, parts=8, settings={"short": LATE}) as toy:
        toy.trouble(LATE, "hold")
        toy.trouble(HUNGRY, "eat")
        toy.trouble(HALF, "half")
        toy.trouble(TORN, "torn")
        toy.trouble(FAILING, "exit 3")
        run, jobs = toy.start_held(KILLED, CANCELLED)
        os.kill(toy.begun(KILLED)[0][0], signal.SIGKILL)
        toy.release(KILLED)  # its next start is not held
        cluster.run(["scancel", str(jobs[CANCELLED])])
        wait_until("its end", lambda: cluster.state_of(jobs[CANCELLED]) == "CANCELLED")
        toy.release(CANCELLED)
        # Also where a minute was too short to be held in.
        wait_until("a time-out", lambda: jobs_of(toy, LATE, "State")[:1] == ["TIMEOUT"])
        toy.release(LATE)
        return toy, run.succeeds()


def jobs_of(toy, name, field) -> list[str]:
    """What the accounts say of each job that the part had, the first one first."""
    command = [
        "sacct", "-X", "-n", "-P", "-o", f"Comment%80,WorkDir%200,{field}", "-S", "now-1hour",
    ]  # fmt: skip
    rows = [line.split("|") for line in toy.cluster.run(command).stdout.splitlines()]
    mine = [str(toy.folder), f"rule_part_wildcards_{name}"]
    return [value for comment, folder, value in rows if [folder, comment] == mine]


def test_the_run_ends_by_itself_with_the_same_bytes(troubled):
    toy, _ = troubled
    toy.ends_well(died_writing=1)


@pytest.mark.parametrize("name", [KILLED, HUNGRY, CANCELLED, HALF, TORN, FAILING, LATE])
def test_a_failed_job_is_named_with_its_log(troubled, name):
    toy, said = troubled
    parts = said.split("Error in rule part:")[1:]
    own = [text for text in parts if f"work/parts/{name}.txt" in text.partition("\n\n")[0]]
    assert own, f"no error of {name}:\n{said}"
    log = f"logs/part/{name}.log"
    assert any(log in text for text in own)
    assert any(f"external_jobid: {jobs_of(toy, name, 'JobID')[0]}" in text for text in own)


@pytest.mark.parametrize("name", [KILLED, CANCELLED, LATE])
def test_held_jobs_were_started_twice(troubled, name):
    toy, _ = troubled
    assert len(jobs_of(toy, name, "JobID")) == 2


def test_only_what_ran_out_of_time_gets_more_of_it(troubled):
    toy, _ = troubled
    times = {name: jobs_of(toy, name, "Timelimit") for name in (LATE, KILLED, FAILING)}
    assert times[LATE] == ["00:01:00", "00:02:00"]
    assert times[KILLED] == ["00:05:00"] * 2
    assert times[FAILING] == ["00:05:00"] * 2


def test_only_what_ran_out_of_memory_gets_more_of_it(troubled):
    toy, _ = troubled
    memory = {name: jobs_of(toy, name, "ReqMem") for name in (HUNGRY, KILLED, FAILING)}
    assert memory[HUNGRY] == ["400M", "800M"]
    assert memory[KILLED] == ["400M"] * 2
    assert memory[FAILING] == ["400M"] * 2
