"""What happens around the jobs: the controller away, a full disk, wrong clocks, an error that stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.slurm.runs import nothing_queued

# sbatch, squeue and sacct fail (after 9 s each) while jobs begin, and once more while they end.
BEGIN_AWAY_S, END_AWAY_S = 60, 20


def test_undisturbed(toy):
    said = toy.start().succeeds()
    assert "Error in rule" not in said
    toy.ends_well()
    assert "Nothing to be done" in toy.start().succeeds()


def test_the_controller_is_away(cluster, toy):
    """While jobs are submitted, and once more while they end."""
    toy.trouble("p0", "hold")
    cluster.stop_ctld()
    try:
        run = toy.start()
        time.sleep(BEGIN_AWAY_S)
        assert run.process.poll() is None, run.text
        cluster.start_ctld()
        toy.wait_for("p0")
        cluster.stop_ctld()
        toy.release("p0")
        time.sleep(END_AWAY_S)
        cluster.start_ctld()
        said = run.succeeds()
    finally:
        if not cluster.daemons.alive("slurmctld"):
            cluster.start_ctld()
    assert "Error in rule" not in said
    assert len(toy.begun("p0")) == 1
    toy.ends_well()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a small disk")
def test_the_disk_is_full(cluster, toy):
    results = toy.folder / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(results)]
    mounted = cluster.run(mount, check=False)
    if mounted.returncode:  # root of a container may not
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    try:
        (results / "others").write_bytes(bytes(60 << 10))
        said = toy.start("--retries", "0").fails()
        assert "Error in rule table" in said
        assert "logs/table.log" in said
        assert "No space left on device" in said
        assert sorted(path.name for path in results.iterdir()) == ["others"]  # no half table
        nothing_queued(cluster, toy.folder)
        (results / "others").unlink()
        toy.start().succeeds()
        toy.ends_well()
    finally:
        cluster.run(["umount", "--lazy", str(results)])


def test_clocks_are_wrong(toy):
    """Files from the future and from the past: nothing hangs, nothing is lost, repeating ends."""
    run, _ = toy.start_held("table")
    for name, hours in (("p0", 2), ("p1", -2)):
        date(toy.folder / f"work/parts/{name}.txt", hours)
    date(toy.folder / "work/run.json", -2)
    toy.release("table")
    run.succeeds()
    toy.ends_well()
    date(toy.folder / "results/table.txt", -4)
    toy.start().succeeds()  # at most the table again, since a part is newer than it
    toy.ends_well()
    assert len(toy.begun("table")) <= 2


def date(path: Path, hours: float) -> None:
    """As if the clock of the node that wrote it were so far ahead."""
    os.utime(path, (time.time() + 3600 * hours,) * 2)


def test_an_error_that_stays(cluster, toy):
    """It is named with rule, job and log, the log is shown, and the rest is done."""
    toy.trouble("p0", "exit 3")
    said = toy.start("--retries", "0").fails()
    (_, job, _) = toy.begun("p0")[0]
    assert "Error in rule part" in said
    assert "logs/part/p0.log" in said
    assert f"external_jobid: {job}" in said
    assert "as it was asked to" in said  # what the script said
    last = said[said.index("1 job(s) failed at each attempt:") :]
    assert "rule part (name=p0), log logs/part/p0.log" in last
    assert "repeat the command" in last
    assert (toy.folder / "work/parts/p1.txt").exists()
    nothing_queued(cluster, toy.folder)
    toy.start("--retries", "0").succeeds()
    toy.ends_well()
