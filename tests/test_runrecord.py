"""One living run per folder: the record that is also the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewscans.errors import UserError
from fewscans.runrecord import RunRecord, earlier_runs, end_command, process_start

ROOT = Path(__file__).resolve().parent.parent
# Greater than any number that a process can have.
NO_PID = 2**22 + 1


def a_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def write(folder: Path, **changes: object) -> Path:
    """A record of somebody else; by default of a process here that is gone."""
    record = {
        "token": "t",
        "host": os.uname().nodename,
        "pid": NO_PID,
        "start": "1",
        "command": "snakemake",
    }
    path = folder / "run.json"
    path.write_text(json.dumps(record | changes))
    return path


def test_a_free_folder_is_taken_and_given_back(tmp_path):
    record = RunRecord(tmp_path / "work")
    assert record.take(["snakemake", "a b"], run_id="r1") is None
    found = json.loads(record.path.read_text())
    assert found["pid"] == os.getpid()
    assert found["start"] == process_start(os.getpid())
    assert found["command"] == "snakemake 'a b'"
    assert found["run_id"] == "r1"
    record.note(more=1)
    assert record.read()["more"] == 1
    record.release()
    assert list((tmp_path / "work").iterdir()) == []


def test_the_same_process_takes_it_again(tmp_path):
    first, second = RunRecord(tmp_path), RunRecord(tmp_path)
    first.take(["a"], run_id="r1")
    assert second.take(["a"], run_id="r2") is None
    assert second.read()["run_id"] == "r2"
    second.release()
    assert first.read() is None


def test_a_dead_run_is_taken_over_with_one_line_and_its_names_are_kept(tmp_path):
    write(tmp_path, run_id="r2", earlier=["r1"])
    record = RunRecord(tmp_path)
    note = record.take(["snakemake"], run_id="r3")
    assert "took over from a run that is gone" in note
    assert "\n" not in note
    assert record.read()["earlier"] == ["r1", "r2"]
    assert earlier_runs(record.read()) == ["r1", "r2", "r3"]
    record.release()


def test_a_pid_that_was_given_to_another_process_is_no_run(tmp_path):
    write(tmp_path, pid=os.getppid(), start="1")
    assert RunRecord(tmp_path).take(["snakemake"])


def test_what_cannot_be_read_is_no_run(tmp_path):
    (tmp_path / "run.json").write_text("{half")
    record = RunRecord(tmp_path)
    assert record.take(["snakemake"])
    assert record.read()["pid"] == os.getpid()


def test_a_living_run_stops_the_second_with_host_pid_jobs_and_the_command_that_ends_it(tmp_path):
    pid = os.getppid()
    write(tmp_path, pid=pid, start=process_start(pid), command="snakemake -j1")
    with pytest.raises(UserError) as error:
        RunRecord(tmp_path).take(["snakemake"], more=lambda other: ["  job 7  RUNNING"])
    text = str(error.value)
    assert f"pid {pid} on {os.uname().nodename}" in text
    assert "snakemake -j1" in text
    assert "job 7  RUNNING" in text
    assert f"kill -INT {pid}" in text


def test_a_run_on_another_host_lives_while_its_heart_beats(tmp_path):
    path = write(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(UserError, match="ssh elsewhere kill -INT 1"):
        RunRecord(tmp_path).take(["snakemake"])
    os.utime(path, (1, 1))
    assert "took over" in RunRecord(tmp_path).take(["snakemake"])


def test_a_quiet_run_on_another_host_is_waited_for_until_it_is_known(tmp_path, monkeypatch):
    write(tmp_path, host="elsewhere", pid=1)
    record = RunRecord(tmp_path, quiet_after_s=0.1, dead_after_s=0.2)
    age, said = [0.15], []
    monkeypatch.setattr(record, "age_s", lambda: age[0])

    def say(line: str) -> None:
        said.append(line)
        age[0] = 0.3

    assert "took over" in record.take(["snakemake"], say=say)
    assert len(said) == 1
    assert "no sign of life" in said[0]


def test_the_heart_beats_and_a_lost_record_is_noticed(tmp_path):
    lost: list[str] = []
    record = RunRecord(tmp_path, heartbeat_s=0.05)
    record.take(["snakemake"], on_lost=lost.append)
    os.utime(record.path, (1, 1))
    wait_for(lambda: record.path.stat().st_mtime > 1)
    write(tmp_path, host="elsewhere", token="other")
    wait_for(lambda: bool(lost))
    assert "elsewhere" in lost[0]
    record.release()
    assert record.path.exists(), "it is not ours to remove"


TAKE = """
import sys, time
from fewscans.errors import UserError
from fewscans.runrecord import RunRecord
print("ready", flush=True)
while time.time() < float(sys.argv[2]):
    pass
try:
    RunRecord(sys.argv[1]).take(["snakemake"])
except UserError:
    print("refused", flush=True)
else:
    print("won", flush=True)
time.sleep(10**6)
"""


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_that_start_at_once_exactly_one_wins(tmp_path, stale):
    if stale:
        write(tmp_path)
    began = str(time.time() + 1.5)
    starters = [a_process(TAKE, str(tmp_path), began) for _ in range(6)]
    try:
        said = [[p.stdout.readline().strip() for _ in range(2)][1] for p in starters]
    finally:
        for p in starters:
            p.kill()
            p.wait()
    assert sorted(said) == ["refused"] * 5 + ["won"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "run.json"] == []


def test_a_claim_of_a_process_that_died_in_between_does_not_block(tmp_path):
    path = write(tmp_path)
    (tmp_path / ".run-after-t").write_text(path.read_text())
    assert RunRecord(tmp_path).take(["snakemake"])


def test_killed_without_a_word_the_folder_is_free_again(tmp_path):
    holder = a_process(TAKE, str(tmp_path), "0")
    try:
        assert [holder.stdout.readline().strip() for _ in range(2)] == ["ready", "won"]
        with pytest.raises(UserError, match=f"kill -INT {holder.pid}"):
            RunRecord(tmp_path).take(["snakemake"])
    finally:
        holder.kill()
        holder.wait()
    assert str(holder.pid) in RunRecord(tmp_path).take(["snakemake"])


def test_how_a_run_elsewhere_is_ended():
    assert end_command({"host": "h9", "pid": 5}) == "ssh h9 kill -INT 5"
    assert end_command({"host": os.uname().nodename, "pid": 5}) == "kill -INT 5"


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
