"""Ranks: how they are started, which is which, and what is asked for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest

from fewscans import plan
from fewscans import ranks as launching
from fewscans.cluster.site import Site
from fewscans.config.load import load
from fewscans.cost.resources import RuleResources
from fewscans.errors import UserError
from fewscans.slots import Cards


def test_a_failed_rank_ends_all(tmp_path, monkeypatch):
    """The first bad exit code is the answer; who does not leave is ended."""
    monkeypatch.setattr(launching, "GRACE_S", 0.5)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code = "import os, time; os.environ['RANK'] == '1' and os._exit(7); time.sleep(10**6)"
    assert launching.start(3, [sys.executable, "-c", code], threads=1, take=no_cards) == 7
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launching.start(2, [sys.executable, "-c", code], threads=1, take=no_cards) == 137


def no_cards(_: int) -> Cards:
    return Cards()


def test_each_rank_is_given_its_card(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code = (
        "import os, sys, pathlib; e = os.environ; "
        "pathlib.Path(sys.argv[1], e['RANK']).write_text(e['CUDA_VISIBLE_DEVICES'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    take = lambda n: Cards(["GPU-aaa", "MIG-bbb"][:n])  # noqa: E731
    assert launching.start(2, command, threads=1, take=take) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["GPU-aaa", "MIG-bbb"]


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    """Commands that print a line, before others in PATH; their arguments go to NAME.said."""
    for name, line in commands.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.said\necho "{line}"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_in_a_job_of_as_many_tasks_srun_starts_the_ranks(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    fake(tmp_path, monkeypatch, scontrol="JobId=12 NumNodes=2 NumCPUs=8 NumTasks=4", srun="")
    asked: list[int] = []
    assert launching.start(4, ["python", "x.py"], threads=3, take=asked.append) == 0  # type: ignore[arg-type, func-returns-value]
    said = (tmp_path / "srun.said").read_text()
    assert said == "--nodes=2 --ntasks=4 --cpus-per-task=3 --kill-on-bad-exit=1 python x.py\n"
    assert asked == []
    # A job of one task, where somebody works by hand: the ranks are started like on any machine.
    command = [sys.executable, "-c", "import os; assert os.environ['WORLD_SIZE'] == '2'"]
    assert launching.start(2, command, threads=1, take=no_cards) == 0
    assert (tmp_path / "srun.said").read_text() == said


def test_a_job_that_cannot_start_its_ranks_says_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="job 12 of Slurm has not srun and scontrol"):
        launching.start(2, ["python"], threads=1, take=no_cards)


SLURM_STEP = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "12", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "nowhere[7-8]",
}  # fmt: skip


def test_a_task_of_srun_finds_its_place(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SUBMITIT_EXECUTOR", launching.RENDEZVOUS):
        monkeypatch.delenv(name, raising=False)
    for name, value in SLURM_STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaa,GPU-bbb")
    # Its name is in no directory of names: Slurm has the address.
    fake(tmp_path, monkeypatch, scontrol="NodeName=nowhere7 NodeAddr=127.0.0.9 Port=1")
    found = launching.find_place(4)
    assert found is not None
    assert (found.rank, found.size) == (3, 4)
    assert found.rendezvous.startswith("tcp://127.0.0.9:")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-bbb"
    assert "SUBMITIT_EXECUTOR" not in os.environ
    with pytest.raises(UserError, match="started as 4 processes, and the encoder says `ranks: 2`"):
        launching.find_place(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_LOCALID", "2")
    with pytest.raises(UserError, match="rank 2 of this node has no GPU: it sees 2"):
        launching.find_place(4)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # an ordinary job
    assert launching.find_place(4) is None


def test_a_rank_of_torchrun_finds_its_place(monkeypatch):
    monkeypatch.delenv(launching.RENDEZVOUS, raising=False)
    given = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a.b",
        "MASTER_PORT": "77",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launching.find_place(2) == launching.Place(1, 2, "tcp://a.b:77")


def test_a_job_of_ranks_is_asked_for_by_nodes_tasks_and_cards():
    encoders = {"mine": {"method": "simclr", "ranks": 4}, "alone": {"method": "simclr"}}
    raw = {"datasets": {"a": {"root": "x"}}, "encoders": encoders, "compute": {"threads": 3}}
    made = plan.expand(load(raw))
    gpus = {"classes": {"gpu": {"partition": "g"}}, "partitions": {"g": {"max_gpu": 2, "nodes": 2}}}
    job = Namespace(encoder="mine", recipe=next(iter(made.recipes)), dataset="a")

    def asked(rule: str, site: Site | None) -> dict[str, Any]:
        found = RuleResources(made, site=site).of(rule)
        values = {"mem_mb": lambda w: found["mem_mb"](w, 1)} if callable(found["mem_mb"]) else {}
        values = found | values
        names = ("nodes", "tasks", "gpu", "mem_mb")
        return {k: v(job) if k in names and callable(v) else v for k, v in values.items()}

    on_two = asked("pretrain_ranks", Site.model_validate(gpus))
    alone = asked("pretrain", Site.model_validate(gpus))
    wanted = {
        "mpi": "srun",
        "nodes": 2,
        "tasks": 4,
        "gpu": 4,
        "tasks_per_gpu": 1,
        "cpus_per_task": 3,
    }
    assert wanted.items() <= on_two.items()
    assert on_two["mem_mb"] == 2 * alone["mem_mb"]
    assert not {"mpi", "nodes", "tasks"} & set(alone)
    assert alone["gpu"] == 1
    assert asked("pretrain_ranks", None)["nodes"] == 1
    assert asked("pretrain_ranks", None)["mem_mb"] == 4 * asked("pretrain", None)["mem_mb"]
