"""Ranks: several processes together compute what one does, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from engine_factory import make_folds, make_params, make_store, slowed
from slurm_fakes import fake_slurm

from fewscans import pretrain as stage
from fewscans import ranks as launching
from fewscans.batches import epoch_batches
from fewscans.cluster.deadline import TO_BE_CONTINUED
from fewscans.config.load import load
from fewscans.config.stages import PretrainParams
from fewscans.contracts import read_table
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.store import Store

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).parent / "ranks_worker.py"
# Largest relative difference of an epoch's mean loss between two ranks and one; 3.5e-7 was seen in twelve steps.
TOLERANCE = 1e-5


def environment(**more: str) -> dict[str, str]:
    outer = ("RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", launching.RENDEZVOUS)
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start_ranks(
    command: list[str], folder: Path, n: int = 2, **more: str
) -> list[subprocess.Popen[str]]:
    """The ranks themselves, without their parent."""
    common = {"WORLD_SIZE": str(n), launching.RENDEZVOUS: f"file://{folder}/meet"}
    return [
        subprocess.Popen(
            command,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), GLOO_SOCKET_IFNAME="lo", **common, **more),
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
    """Rank 1 is silent while rank 0 asks; the time allowed in the worker is some seconds, in a training 10 minutes."""
    assert "another rank is gone or silent" in worked[0]["silent"]
    assert "start again to go on" in worked[0]["silent"]


CASES = [
    ("simclr", "test_resnet"),
    ("mocov2", "test_resnet"),
    ("mae", "test_vit"),
    ("simmim", "test_resnet"),
]


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


def test_batch_norms_may_be_each_ranks_own(cohort):
    given = {"batch_size": 8, "epochs": 1, "ranks": 2}
    losses = []
    for name, shared in (("shared", True), ("own", False)):
        params = make_params("simclr", sync_batchnorm=shared, **given)
        done = run(script(cohort, params, f"norms-{name}"))
        assert done.returncode == 0, done.stderr
        losses.append(read_table(cohort / f"norms-{name}/history.parquet", "history").loss.iloc[0])
    assert abs(losses[0] - losses[1]) > 100 * TOLERANCE


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
    pd.testing.assert_frame_equal(
        *(frame.drop(columns=["images_per_s", "memory_mb"]) for frame in frames)
    )


def test_a_rank_that_dies_ends_the_others_and_nothing_is_lost(tmp_path):
    """Each is killed once; started again, it comes to the bytes of a training that nobody disturbed."""
    place(tmp_path)
    given = {"epochs": 40, "ranks": 2, "batch_size": 8}
    params = make_params("mae", checkpoint_minutes=1e-9, **given)
    before = None
    for victim in (1, 0):
        meet = tmp_path / f"meet{victim}"
        meet.mkdir()
        started = start_ranks(slowed(script(tmp_path, params, "out")), meet)
        state = wait_for_state(tmp_path, started, before)
        started[victim].kill()
        said = [process.communicate(timeout=120)[1] for process in started]
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


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGUSR1])
def test_the_parent_passes_a_signal_on_and_ends_when_a_rank_fails(tmp_path, by):
    place(tmp_path)
    params = make_params("mae", epochs=3000, ranks=2, batch_size=8, checkpoint_minutes=1e-9)
    parent = subprocess.Popen(
        script(tmp_path, params, "out"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    state = wait_for_state(tmp_path, [parent])
    parent.send_signal(by)
    said = parent.communicate(timeout=90)[1]
    assert parent.returncode == TO_BE_CONTINUED, said
    assert f"asked to stop ({by.name}): state saved at step" in said
    assert state.exists()
    assert not (state.parent / "lease.json").exists()


# -- the end of a job's time -----------------------------------------------------------------------

HURRIED = """
import runpy, sys
from fewscans.cluster import deadline

deadline.WAIT_FOR_LEADER_S = deadline.WAIT_FOR_END_S = 0.0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    with fake_slurm(tmp_path / "slurm", monkeypatch) as made:
        yield made


def in_job(folder: Path, command: list[str], name: str) -> list[subprocess.Popen[str]]:
    """Ranks in the job 5 of a Slurm that ends nobody; they do not wait to be ended."""
    (folder / name).mkdir()
    hurried = [command[0], "-c", HURRIED, *command[1:]]
    return start_ranks(hurried, folder / name, SLURM_JOB_ID="5")


def test_out_of_time_all_stop_at_one_step_and_one_requeues(tmp_path, slurm):
    """Twice, with the time over before the first step; the second time Slurm does not requeue."""
    place(tmp_path)
    command = script(tmp_path, make_params("mae", epochs=40, ranks=2, batch_size=8), "out")
    slurm.job(5, left_s=1, limit_s=60)
    for start, ends in enumerate(
        ("job 5 was requeued and still runs", "To be continued by a retry")
    ):
        started = in_job(tmp_path, command, f"start{start}")
        said = [process.communicate(timeout=120)[1] for process in started]
        assert [process.returncode for process in started] == [TO_BE_CONTINUED] * 2, said
        assert f"state saved at step {start + 1} of 80, this start began at {start}" in said[0]
        assert ends in said[0]
        assert "requeue" not in said[1]
        assert slurm.asked("requeue") == ["requeue 5"] * (start + 1)
        (state,) = (tmp_path / "checkpoints").glob("*/state.pt")
        assert not (state.parent / "lease.json").exists()
        slurm.refuse()


def test_a_signal_to_one_rank_ends_all_and_requeues_nobody(tmp_path, slurm):
    place(tmp_path)
    params = make_params("mae", epochs=3000, ranks=2, batch_size=8, checkpoint_minutes=1e-9)
    slurm.job(5)
    started = in_job(tmp_path, script(tmp_path, params, "out"), "meet")
    wait_for_state(tmp_path, started)
    started[1].terminate()
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [TO_BE_CONTINUED] * 2, said
    assert "asked to stop (SIGTERM): state saved at step" in said[0]
    assert not slurm.asked("requeue")


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
