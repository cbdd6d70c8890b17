"""Ranks: several processes together compute what one does, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from engine_factory import make_folds, make_params, make_store

from fewscans import plan
from fewscans import pretrain as stage
from fewscans import ranks as launching
from fewscans.batches import epoch_batches
from fewscans.cluster.deadline import TO_BE_CONTINUED
from fewscans.cluster.site import Site
from fewscans.config.load import load
from fewscans.config.stages import PretrainParams
from fewscans.contracts import read_table
from fewscans.cost.resources import RuleResources
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.slots import Cards
from fewscans.store import Store

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).parent / "ranks_worker.py"
# Largest relative difference of an epoch's mean loss between two ranks and one; 3.5e-7 was seen in twelve steps.
TOLERANCE = 1e-5


def environment(**more: str) -> dict[str, str]:
    outer = ("RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", launching.RENDEZVOUS)
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start_ranks(command: list[str], folder: Path, n: int = 2) -> list[subprocess.Popen[str]]:
    """The ranks themselves, without their parent."""
    common = {"WORLD_SIZE": str(n), launching.RENDEZVOUS: f"file://{folder}/meet"}
    return [
        subprocess.Popen(
            command,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), GLOO_SOCKET_IFNAME="lo", **common),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(n)
    ]  # fmt: skip


def script(folder: Path, params: PretrainParams, name: str, cache: str = "cache") -> list[str]:
    return [
        sys.executable, str(ROOT / "scripts/pretrain.py"), "--params", params.model_dump_json(),
        "--store", str(folder / "store"), "--folds", str(folder / "folds.parquet"), "--out", str(folder / name),
        "--cache", str(folder / cache), "--checkpoints", str(folder / "checkpoints"),
        "--sidecar", str(folder / f"{name}.json"),
    ]  # fmt: skip


def place(folder: Path, n: int = 20) -> Path:
    store = make_store(folder / "store", n=n)
    make_folds(folder / "folds.parquet", store.scans)
    return folder


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def worked(tmp_path_factory) -> list[dict]:
    """What two processes found in `ranks_worker.py`, for tests to look at."""
    folder = tmp_path_factory.mktemp("worker")
    started = start_ranks([sys.executable, str(WORKER), str(folder)], folder)
    texts = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(texts)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    "kind", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchNormAct2d", "bare"]
)
def test_batch_norm_is_that_of_the_whole_batch(worked, kind):
    """Outputs, gradients and running statistics, in double precision, against torch's on one process."""
    for found in worked:
        assert len(found["norm"][kind]) == 6
        assert max(found["norm"][kind].values()) < 1e-12


def test_gathered_rows_carry_gradients_to_their_owner(worked):
    for rank, found in enumerate(worked):
        assert found["gathered"] == [[0.0, 1.0], [2.0, 3.0], [10.0, 11.0], [12.0, 13.0]]
        # The loss of rank r is (r + 1) * sum(weights * rows): what flows back is of both.
        assert found["gather gradient"] == [[3.0 * (2 * rank + 1)] * 2, [3.0 * (2 * rank + 2)] * 2]


def test_averages_flags_and_words(worked):
    for found in worked:
        assert found["average"] == [1.5, 15.0, 4.5]
        assert found["flags"] == [True, False, True]
        assert found["first"] == "said by 0"
        assert found["raised"] == "OSError: disk full"
    assert [found["acted"] for found in worked] == [True, False]


def test_a_batch_is_divided_in_order(worked):
    assert [found["share"] for found in worked] == [[0, 1, 2], [3, 4, 5]]


def test_a_silent_rank_ends_the_others_in_time(worked):
    """Rank 1 sleeps while rank 0 asks; the time allowed in the worker is 3 s, in a training 10 minutes."""
    assert "another rank is gone or silent" in worked[0]["silent"]
    assert "start again to go on" in worked[0]["silent"]


CASES = [("simclr", "test_resnet"), ("mae", "test_vit"), ("simmim", "test_resnet")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return place(tmp_path_factory.mktemp("cohort"))


def by_one(folder: Path, params: PretrainParams, name: str) -> None:
    """The same by one process, which is this one."""
    folders = (folder / name, folder / "cache", folder / "checkpoints")
    stage.pretrain(params, Store.open(folder / "store"), folder / "folds.parquet", {}, *folders)


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_losses_are_those_of_one(cohort, method, backbone):
    """Twelve steps of batches of 8: the mean loss of each epoch, and the gauges, differ by rounding alone."""
    given = {"backbone": backbone, "batch_size": 8, "epochs": 6}
    by_one(cohort, make_params(method, **given), f"{method}-1")
    done = run(script(cohort, make_params(method, ranks=2, **given), f"{method}-2"))
    assert done.returncode == 0, done.stderr
    for said in ("2 processes share this training", "12 steps in", "finished as"):
        assert done.stderr.count(said) == 1  # one of them speaks
    meta = json.loads((cohort / f"{method}-2/encoder.json").read_text())
    assert (meta["settings"]["ranks"], meta["steps"]) == (2, 12)
    assert json.loads((cohort / f"{method}-2.json").read_text())["digest"] == meta["digest"]
    one, two = (read_table(cohort / f"{method}-{n}/history.parquet", "history") for n in (1, 2))
    assert one["loss"].nunique() == 6
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=TOLERANCE)
    for gauge in ("grad_norm", "embedding_std", "effective_rank"):
        np.testing.assert_allclose(two[gauge], one[gauge], rtol=10 * TOLERANCE)


def wait_for_state(
    folder: Path, processes: list[subprocess.Popen[str]], before: int | None = None
) -> Path:
    """The checkpoint, once there is one later than `before`."""
    while True:
        for found in (folder / "checkpoints").glob("*/state.pt"):
            if before is None or found.stat().st_mtime_ns > before:
                return found
        for process in processes:
            assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


def same_history(one: Path, other: Path) -> None:
    frames = [read_table(folder / "history.parquet", "history") for folder in (one, other)]
    pd.testing.assert_frame_equal(*(frame.drop(columns="images_per_s") for frame in frames))


def test_a_rank_that_dies_ends_the_others_and_nothing_is_lost(tmp_path):
    """Each is killed once; started again, it comes to the bytes of a training that nobody disturbed."""
    place(tmp_path)
    given = {"epochs": 40, "ranks": 2, "batch_size": 8}
    params = make_params("mae", checkpoint_minutes=1e-9, **given)
    before = None
    for victim in (1, 0):
        meet = tmp_path / f"meet{victim}"
        meet.mkdir()
        started = start_ranks(script(tmp_path, params, "out"), meet)
        state = wait_for_state(tmp_path, started, before)
        started[victim].kill()
        said = [process.communicate(timeout=60)[1] for process in started]
        assert started[victim].returncode == -signal.SIGKILL
        assert started[1 - victim].returncode == 1
        expected = f"error: mine, rank {1 - victim} of 2: another rank is gone or silent"
        assert expected in said[1 - victim]
        assert "start again to go on" in said[1 - victim]
        before = state.stat().st_mtime_ns
        assert not (tmp_path / "out/encoder.json").exists()
    done = run(script(tmp_path, make_params("mae", **given), "out"))
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    undisturbed = run(script(tmp_path, make_params("mae", **given), "undisturbed", "other"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    for name in ("encoder.safetensors", "reconstructions.npz"):
        found, wanted = (sha256_file(tmp_path / out / name) for out in ("out", "undisturbed"))
        assert found == wanted
    same_history(tmp_path / "out", tmp_path / "undisturbed")


def test_the_parent_passes_sigterm_on_and_ends_when_a_rank_fails(tmp_path):
    place(tmp_path)
    params = make_params("mae", epochs=3000, ranks=2, batch_size=8, checkpoint_minutes=1e-9)
    parent = subprocess.Popen(
        script(tmp_path, params, "out"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    state = wait_for_state(tmp_path, [parent])
    parent.terminate()
    said = parent.communicate(timeout=90)[1]
    assert parent.returncode == TO_BE_CONTINUED, said
    assert "asked to stop (SIGTERM): state saved at step" in said
    assert state.exists()
    assert not (state.parent / "lease.json").exists()


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


def test_batches_are_multiples_of_the_ranks():
    assert epoch_batches(100, 32, ranks=1) == (3, 33)
    assert epoch_batches(100, 32, ranks=4) == (3, 32)
    assert epoch_batches(3, 4, ranks=4)[1] == 0


def test_what_cannot_be_divided_is_refused(tmp_path):
    raw = {"datasets": {"a": {"root": "x"}}, "encoders": {"mine": {"method": "mae", "ranks": 3}}}
    with pytest.raises(UserError, match=r"encoders.mine.ranks +must divide batch_size 128.*129"):
        load(raw)
    load({**raw, "encoders": {"mine": {"method": "mae", "ranks": 4}}})
    place(tmp_path, n=6)
    with pytest.raises(UserError, match="mine: 2 training scans for 4 ranks"):
        by_one(tmp_path, make_params("mae", ranks=4), "few")
    with pytest.raises(
        UserError, match=r"mine: `ranks: 2`, and there are 1\. Use scripts/pretrain\.py"
    ):
        by_one(tmp_path, make_params("mae", ranks=2), "alone")


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
