"""Jobs of a killed run: known by folder, comment, name; waited for or cancelled; what they do late is harmless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewscans.cluster import hooks, orphans, reasons, slurm
from fewscans.errors import UserError
from fewscans.runrecord import RunRecord, earlier_runs

ROOT = Path(__file__).resolve().parent.parent
RULES = ["part", "part_two", "table"]


def job(job_id: str = "7", **changes: object) -> slurm.Job:
    facts = {
        "id": job_id,
        "name": "run-a",
        "state": "RUNNING",
        "comment": "rule_part_wildcards_p0",
        "workdir": os.getcwd(),
        "partition": "cpu",
        "node": "n1",
        "start": None,
        "end": None,
        "reason": "None",
        "restarts": 0,
    }
    return slurm.Job(**(facts | changes))


@pytest.fixture
def queue(monkeypatch):
    """What Slurm answers, look by look; and what is cancelled."""

    class Queue:
        looks: list[list[slurm.Job] | BaseException] = []
        cancelled: list[str] = []

        def jobs(self, *_, name=None, **__):
            now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            if isinstance(now, BaseException):
                raise now
            return [one for one in now if name in (None, one.name)]

        def cancel(self, ids):
            self.cancelled = [*self.cancelled, *sorted(ids)]

    made = Queue()
    monkeypatch.setattr(slurm, "jobs", made.jobs)
    monkeypatch.setattr(slurm, "cancel", made.cancel)
    monkeypatch.setattr(slurm, "available", lambda *_: True)
    return made


def settle(queue, setting="wait", tell_s=10**6):
    said: list[str] = []
    n = orphans.settle(
        lambda: orphans.find(os.getcwd(), RULES, "mine"),
        setting,
        said.append,
        poll_s=0,
        tell_s=tell_s,
    )
    return n, "\n".join(said)


@pytest.mark.parametrize(
    ("comment", "rule"),
    [
        ("rule_part_wildcards_p0", "part"),
        ("rule_part_two_wildcards_p0", "part_two"),
        ("rule_table", "table"),
        ("rule_5c3f-11_part_table", "table"),
        ("rule_partial", None),
        ("somebody's job", None),
        ("", None),
    ],
)
def test_rules_by_comment(comment, rule):
    assert orphans.rule_of(job(comment=comment), RULES) == rule


def test_only_jobs_of_this_folder_of_these_rules_and_of_no_living_run(queue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = RunRecord(tmp_path / "other-work")
    record.take(["snakemake"], run_id="living")
    orphans.mark(tmp_path, "living", record.path)
    orphans.mark(tmp_path, "gone", tmp_path / "work/run.json")
    queue.looks = [
        [
            job("1", workdir=str(tmp_path)),
            job("2", workdir=str(tmp_path), name="mine"),
            job("3", workdir=str(tmp_path), name="living"),
            job("4", workdir=str(tmp_path), name="gone"),
            job("5", workdir="/elsewhere"),
            job("6", workdir=str(tmp_path), comment="rule_stranger"),
        ]
    ]
    found = orphans.find(tmp_path, RULES, "mine")
    assert [one.id for one in found] == ["1", "4"]
    orphans.sweep(tmp_path)
    assert [path.name for path in (tmp_path / orphans.MARKS).iterdir()] == ["living"]
    record.release()


def test_a_folder_seen_through_a_link_is_the_same_folder(queue, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    queue.looks = [[job(workdir=str(tmp_path / "link"))]]
    assert orphans.find(tmp_path / "real", RULES)


def test_waiting_says_at_once_for_what_and_cancels_nothing(queue):
    queue.looks = [[job("7"), job("8", state="PENDING", reason="Priority")], [job("8")], []]
    n, said = settle(queue)
    assert n == 2
    assert "waiting for them before anything is submitted" in said
    assert "job 7  RUNNING" in said
    assert "Priority" in said
    assert "scancel 7 8" in said
    assert queue.cancelled == []


def test_the_setting_cancels(queue):
    queue.looks = [[job("7"), job("8", state="PENDING")], [job("7", state="COMPLETING")], []]
    n, said = settle(queue, "cancel")
    assert n == 2
    assert queue.cancelled == ["7", "8"]
    assert "orphans: cancel" in said


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "launch failed requeued held"])
@pytest.mark.parametrize("before", [[], [[job("7"), job("8", state="PENDING", reason="Priority")]]])
def test_what_can_never_start_is_cancelled_and_named(queue, reason, before):
    stuck = job("8", state="PENDING", reason=reason, comment="rule_part_wildcards_p1")
    queue.looks = [*before, [job("7"), stuck], [job("7")], []]
    _, said = settle(queue)
    assert queue.cancelled == ["8"]
    told = said.partition("can never start and are cancelled")[2]
    assert "job 8" in told.splitlines()[1]
    assert "rule_part_wildcards_p1" in told
    assert reason in told
    assert "job 7" not in told


def test_a_job_that_slurm_held_in_another_way_is_left_to_its_owner(queue):
    queue.looks = [[job("8", state="PENDING", reason="JobHeldUser")], []]
    _, said = settle(queue)
    assert queue.cancelled == []
    assert "JobHeldUser" in said
    assert "scancel 8" in said


def test_a_cancellation_that_failed_or_was_forgotten_is_repeated(queue, monkeypatch):
    asked = []

    def cancel(ids):
        asked.append(sorted(ids))
        if len(asked) == 1:
            raise slurm.SlurmError(["scancel"], "Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "cancel", cancel)
    queue.looks = [[job("7")], [job("7")], [job("7")], []]
    n, said = settle(queue, "cancel", tell_s=0)
    assert n == 1
    assert asked == [["7"]] * 3
    assert said.count("could not be cancelled") == 1


def test_cancelled_jobs_are_waited_for_and_cancelled_once(queue):
    queue.looks = [[job("7")], [job("7", state="COMPLETING")], [job("7", state="COMPLETING")], []]
    settle(queue, "cancel")
    assert queue.cancelled == ["7"]


def test_while_slurm_is_silent_nothing_is_taken_for_granted(queue):
    silent = slurm.SlurmError(["squeue"], "Unable to contact slurm controller")
    queue.looks = [silent, silent, [job("7")], []]
    n, said = settle(queue)
    assert n == 1
    assert "Unable to contact" in said


def test_ctrl_c_while_waiting_submits_and_cancels_nothing_and_forgets_nothing(
    queue, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hooks, "_RUN", None)
    (tmp_path / "work").mkdir()
    dead = {"token": "t", "host": os.uname().nodename, "pid": 2**22 + 1, "start": "1"}
    (tmp_path / "work/run.json").write_text(json.dumps({**dead, "run_id": "run-a"}))
    queue.looks = [[job("7", workdir=str(tmp_path))], KeyboardInterrupt()]
    monkeypatch.setattr(orphans.time, "sleep", lambda seconds: None)
    ended = []
    monkeypatch.setattr(hooks.atexit, "register", ended.append)
    executor = type("Executor", (), {"__module__": "snakemake_executor_plugin_slurm"})()
    executor.run_uuid = "run-b"
    workflow = SimpleNamespace(
        scheduler=SimpleNamespace(_executor=executor),
        rules=[SimpleNamespace(name=name) for name in RULES],
    )
    with pytest.raises(UserError, match="interrupted before anything was submitted"):
        hooks.begin(workflow, "work")
    assert queue.cancelled == []
    (end,) = ended
    end()
    left = RunRecord("work").read()
    # What the next start, also one without Slurm, asks for.
    assert earlier_runs(left) == ["run-a", "run-b"]


def test_a_run_that_ends_badly_leaves_none_of_its_jobs(tmp_path, monkeypatch):
    """Snakemake cancels nothing where Ctrl-C meets it while it looks at its jobs: they are in none of its lists."""
    run = hooks.Run(SimpleNamespace(), tmp_path)
    run.run_id, run._mark = "run-a", tmp_path / "mark"
    left = {"run-a": [job("7"), job("8")], "run-b": [job("9")]}
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "jobs", lambda name: left[name])
    monkeypatch.setattr(slurm, "cancel", cancelled.extend)
    monkeypatch.setattr(hooks, "_RUN", run)
    hooks.end()
    assert cancelled == []
    run._mark = tmp_path / "mark"
    hooks.end(failed=True)
    assert cancelled == ["7", "8"]
    silent = slurm.SlurmError(["squeue"], "Unable to contact slurm controller")
    monkeypatch.setattr(slurm, "jobs", lambda name: (_ for _ in ()).throw(silent))
    hooks.end(failed=True)  # no worse than before


def test_nothing_left_says_nothing(queue):
    queue.looks = [[]]
    assert settle(queue) == (0, "")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Priority", "passes"),
        ("Resources", "passes"),
        ("BeginTime", "passes"),
        ("PartitionTimeLimit", "never"),
        ("QOSMaxGRESPerJob", "never"),
        ("AssocMaxWallDurationPerJobLimit", "never"),
        ("QOSMaxJobsPerUserLimit", "passes"),
        ("AssocGrpGRES", "passes"),
        ("launch_failed_requeued_held", "requeued-held"),
        ("launch failed requeued held", "requeued-held"),
        ("JobHeldUser", "somebody"),
        ("job requeued in held state", "somebody"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "somebody"),
    ],
)
def test_reasons(reason, kind):
    assert reasons.kind(reason) == kind
    assert reasons.words(reason, "12")


# -- an orphan that ends badly after its duplicate has succeeded -----------------------------------

SNAKEFILE = """
rule part:
    output: "work/out.txt"
    shell: "{sys.executable} job.py {{output:q}}"
"""
JOB = """
import os, signal, sys, time
from pathlib import Path
from fewscans.files import atomic

first = not Path("begun").exists()
if first:
    Path("begun").write_text(str(os.getpid()))
    while not Path("go").exists():
        time.sleep(0.05)
with atomic(sys.argv[1]) as temporary:
    temporary.write_text("half")
    if first and Path("go").read_text() == "exit":
        sys.exit(1)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    temporary.write_text("whole")
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_an_orphan_that_ends_badly_spoils_nothing(tmp_path, end):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(sys=sys))
    (tmp_path / "job.py").write_text(JOB)
    # As the profiles have it, and as jobs inherit it.
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--nolock",
        "--keep-incomplete",
        "--rerun-incomplete",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shared = {
        "cwd": tmp_path,
        "env": environment,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    orphan = subprocess.Popen(command, **shared)
    try:
        while not (tmp_path / "begun").exists():
            assert orphan.poll() is None
            time.sleep(0.05)
        assert subprocess.run(command, **shared).returncode == 0
        made = tmp_path / "work/out.txt"
        before = made.stat()
        (tmp_path / "go.tmp").write_text(end)
        (tmp_path / "go.tmp").rename(tmp_path / "go")
        assert orphan.wait() != 0
    finally:
        (tmp_path / "go").touch()  # whatever happened, the job ends
        orphan.wait()
    assert made.read_text() == "whole"
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert subprocess.run(command, **shared).returncode == 0
    assert made.read_text() == "whole"
    left = [path.name for path in (tmp_path / "work").iterdir()]
    if end == "exit":
        assert left == ["out.txt"]
