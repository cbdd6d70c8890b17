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
    toy = Toy(
        cluster, tmp_path_factory.mktemp("trouble") / "run", parts=8, settings={"short": LATE}
    )
    toy.trouble(KILLED, "hold")
    toy.trouble(CANCELLED, "hold")
    toy.trouble(LATE, "hold")
    toy.trouble(HUNGRY, "eat")
    toy.trouble(HALF, "half")
    toy.trouble(TORN, "torn")
    toy.trouble(FAILING, "exit 3")
    run = toy.start()
    try:
        pid, _ = toy.wait_for(KILLED)
        toy.release(KILLED)  # its next start is not held
        os.kill(pid, signal.SIGKILL)
        _, job = toy.wait_for(CANCELLED)
        cluster.run(["scancel", str(job)])
        wait_until("its end", lambda: cluster.state_of(job) == "CANCELLED")
        toy.release(CANCELLED)
        _, job = toy.wait_for(LATE)
        wait_until("its time-out", lambda: cluster.state_of(job) == "TIMEOUT", 150)
        toy.release(LATE)
        return toy, run.succeeds(300)
    finally:
        run.kill()


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
    assert any(f"external_jobid: {job}" in text for _, job, _ in toy.begun(name) for text in own)


@pytest.mark.parametrize("name", [KILLED, CANCELLED, LATE])
def test_held_jobs_were_started_twice(troubled, name):
    toy, _ = troubled
    assert len({job for _, job, _ in toy.begun(name)}) == 2


def limits(toy, name) -> list[tuple[str, str]]:
    """(time limit, memory) of each job that the part had, the first one first."""
    command = [
        "sacct", "-X", "-n", "-P", "-o", "Comment%80,Timelimit,ReqMem,WorkDir%200", "-S", "now-1hour",
    ]  # fmt: skip
    rows = [line.split("|") for line in toy.cluster.run(command).stdout.splitlines()]
    return [
        (time, memory)
        for comment, time, memory, folder in rows
        if folder == str(toy.folder) and comment == f"rule_part_wildcards_{name}"
    ]


def test_only_what_ran_out_of_time_gets_more_of_it(troubled):
    toy, _ = troubled
    times = {name: [time for time, _ in limits(toy, name)] for name in (LATE, KILLED, FAILING)}
    assert times[LATE] == ["00:01:00", "00:02:00"]
    assert times[KILLED] == ["00:05:00"] * 2
    assert times[FAILING] == ["00:05:00"] * 2


def test_only_what_ran_out_of_memory_gets_more_of_it(troubled):
    toy, _ = troubled
    memory = {name: [m for _, m in limits(toy, name)] for name in (HUNGRY, KILLED, FAILING)}
    assert memory[HUNGRY] == ["400M", "800M"]
    assert memory[KILLED] == ["400M"] * 2
    assert memory[FAILING] == ["400M"] * 2
