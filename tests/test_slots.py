"""GPU cards of a machine: jobs that run at once never share one. The cards are simulated, the processes are real."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewscans import slots
from fewscans.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Indices, UUIDs and MIG names, as one machine may mix them.
CARDS = "GPU-aaa,MIG-bbb,3"

# A job: takes N cards, says which, keeps each for a while in which nobody else may have it.
JOB = """
import os, sys, time
from pathlib import Path
from fewscans import slots

folder, n, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
asked = os.environ["CUDA_VISIBLE_DEVICES"]
slots.POLL_S = 0.003
for _ in range(rounds):
    os.environ["CUDA_VISIBLE_DEVICES"] = asked  # another job would begin like this
    with slots.take(n, "auto", folder=folder / "locks") as cards:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(cards.names)
        used = [folder / name for name in cards.names]
        for path in used:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # fails where somebody computes on the card
        print(*cards.names, flush=True)
        time.sleep(0.004)
        for path in used:
            path.unlink()
"""
HOLDER = """
import sys, time
from pathlib import Path
from fewscans import slots

with slots.take(int(sys.argv[2]), "auto", folder=Path(sys.argv[1]) / "locks") as cards:
    print(*cards.names, flush=True)
    time.sleep(10**6)
"""


def start(code: str, *arguments: object, cards: str = CARDS) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**kept, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": cards},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Path:
    """This process on a machine with three cards; the folder of locks."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", CARDS)
    return tmp_path / "locks"


def test_many_jobs_never_two_at_one_card(tmp_path):
    """Ten processes, one to three cards each, thirty times over."""
    jobs = [start(JOB, tmp_path, n, 30) for n in (1, 1, 1, 2, 1, 2, 1, 3, 1, 2)]
    said = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 10, [text for _, text in said]
    taken = [line.split() for out, _ in said for line in out.splitlines()]
    assert len(taken) == 300
    assert {card for cards in taken for card in cards} == set(CARDS.split(","))
    assert all(len(set(cards)) == len(cards) for cards in taken)


def test_a_job_whose_lock_does_nothing_would_be_seen(tmp_path):
    """The test above can fail."""
    broken = JOB.replace(
        "import slots", "import slots\nimport fcntl\nfcntl.flock = lambda *_: None", 1
    )
    assert broken != JOB
    holder = start(HOLDER, tmp_path, 3)
    try:
        for card in holder.stdout.readline().split():
            (tmp_path / card).touch()  # as who computes on it
        assert "FileExistsError" in start(broken, tmp_path, 1, 1).communicate()[1]
    finally:
        holder.kill()
        holder.communicate()


def test_a_killed_job_gives_its_card_back(machine, tmp_path):
    holders = [start(HOLDER, tmp_path, 1) for _ in range(3)]
    try:
        names = [holder.stdout.readline().strip() for holder in holders]
        assert sorted(names) == sorted(CARDS.split(","))
        assert slots._try(1, CARDS.split(","), machine) is None
        holders[1].kill()
        holders[1].wait()
        with slots.take(1, "auto", folder=machine) as mine:
            assert mine.names == [names[1]]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_waiting_is_told_once_and_ends(machine, caplog, monkeypatch):
    first = slots.take(3, "cuda", folder=machine)
    os.environ["CUDA_VISIBLE_DEVICES"] = CARDS
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.release()

    monkeypatch.setattr(slots.time, "sleep", wait)
    with caplog.at_level(logging.INFO, "fewscans"), slots.take(2, "cuda", folder=machine) as second:
        assert second.names == ["GPU-aaa", "MIG-bbb"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaa,MIG-bbb"
    waiting = [line for line in caplog.messages if "waiting" in line]
    assert waiting == ["all of GPU-aaa, MIG-bbb, 3 are in use; waiting for 2"]
    assert "computing on card GPU-aaa, MIG-bbb" in caplog.text


def test_a_child_that_inherits_the_locks_keeps_the_cards(machine):
    """Ranks outlive a parent that was killed."""
    mine = slots.take(3, "auto", folder=machine)
    child = subprocess.Popen(["sleep", "1000"], pass_fds=mine.descriptors)
    mine.release()
    try:
        assert slots._try(1, CARDS.split(","), machine) is None
    finally:
        child.kill()
        child.wait()
    assert slots._try(1, CARDS.split(","), machine) is not None


def test_who_asks_for_too_many_is_told(machine):
    with pytest.raises(UserError, match=r"4 GPUs are needed.*sees 3 \(GPU-aaa, MIG-bbb, 3\)"):
        slots.take(4, "auto", folder=machine)


@pytest.mark.parametrize(
    ("variables", "device"),
    [({"SLURM_JOB_ID": "7"}, "auto"), ({}, "cpu"), ({"CUDA_VISIBLE_DEVICES": ""}, "cuda")],
)
def test_nothing_is_done_where_there_is_nothing_to_choose(machine, monkeypatch, variables, device):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert slots.take(1, device, folder=machine).names == []
    assert dict(os.environ) == before
    assert not machine.exists()


@pytest.mark.parametrize(
    ("given", "cards"),
    [("1, 0", ["1", "0"]), ("0,-1,1", ["0"]), ("-1", []), ("NoDevFiles", []), ("GPU-a,GPU-a", ["GPU-a"]),
     ("MIG-GPU-x/1/0", ["MIG-GPU-x/1/0"])],
)  # fmt: skip
def test_cards_are_those_that_cuda_would_see(monkeypatch, given, cards):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert slots.visible_cards() == cards


def test_without_the_variable_there_are_as_many_as_device_files(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(slots.glob, "glob", lambda _: ["/dev/nvidia0", "/dev/nvidia3"])
    assert slots.visible_cards() == ["0", "1"]  # numbers of CUDA, not of files
    monkeypatch.setattr(slots.glob, "glob", lambda _: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slots.visible_cards() == []
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g.5gb'\n")
    smi.chmod(0o755)
    assert slots.visible_cards() == ["0"]
