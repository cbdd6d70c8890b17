"""One pretraining by two processes on two nodes, started by a rule: the losses of one process."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import yaml

from fewscans.contracts import read_table
from fewscans.files import sha256_file
from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until
from tests.slurm.runs import LONG_S, PATIENCE, Run, go_on, nothing_queued, pause, start
from tests.workflows import CONFIG, Clone, copy_clone, make_clone

# A checkpoint after each step.
ENCODER = {
    "method": "simclr", "backbone": "test_resnet", "epochs": 25, "batch_size": 8, "checkpoint_minutes": 1e-9,
}  # fmt: skip


def folder_of(name: str) -> str:
    return f"work/encoders/{name}/px32/tiny/0/0"


def prepared(folder: Path) -> Clone:
    """A clone whose data are ready, and the encoder `one`, made here by one process; `two` differs in the ranks."""
    clone = make_clone(folder)
    encoders = {"one": ENCODER, "two": {**ENCODER, "ranks": 2}}
    clone.config(**{**CONFIG, "encoders": encoders})
    clone.run("--cores", "2", f"{folder_of('one')}/encoder.json")
    return clone


def pretrain_two(cluster: Cluster, clone: Clone, partition: str = "gpu") -> Run:
    """Start `two` on the cluster: GPUs enough for one rank a node, so it takes two nodes."""
    site = cluster.site(clone.folder / "partitions.yaml")
    text = yaml.safe_load(site.read_text())
    text["classes"]["gpu"]["partition"] = partition
    text["partitions"][partition] |= {"max_gpu": 1, "total_gpu": 2, "gpu_models": ["fake"]}
    site.write_text(yaml.safe_dump(text))
    command = [
        sys.executable, "-m", "snakemake", "--profile", str(clone.folder / "profiles/slurm"), *PATIENCE,
        f"{folder_of('two')}/encoder.json",
    ]  # fmt: skip
    return start(cluster, clone.folder, command, {"FEWSCANS_SITE": str(site)})


def log_of(clone: Clone) -> str:
    path = clone.folder / "logs/pretrain/two.px32.tiny.0.0.log"
    return path.read_text() if path.exists() else ""


def history(clone: Clone, name: str):
    return read_table(clone.folder / folder_of(name) / "history.parquet", "history")


def second_rank(cluster: Cluster) -> int | None:
    """Process of rank 1, where srun has started it."""
    for pid in cluster.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_script = len(words) > 1 and words[1].endswith(b"scripts/pretrain.py")
        if is_script and {b"SLURM_PROCID=1", b"SLURM_STEP_NUM_TASKS=2"} <= set(variables):
            return pid
    return None


def test_two_nodes_come_to_the_losses_of_one_process(cluster, tmp_path):
    """Though a rank is killed on the way: its job ends, is started again and goes on."""
    clone = prepared(tmp_path / "clone")
    undisturbed = copy_clone(clone, tmp_path / "undisturbed")
    undisturbed.run("--cores", "2", f"{folder_of('two')}/encoder.json")
    nodes = f"n[{cluster.layout.gpu[0][1:]}-{cluster.layout.gpu[-1][1:]}]"
    run = pretrain_two(cluster, clone)
    try:
        first = pause(clone.folder, "work/checkpoints", 1)
        assert [job["node"] for job in cluster.queue(clone.folder)] == [nodes]
        second = second_rank(cluster)
        assert second is not None
        os.kill(second, signal.SIGKILL)
        go_on(first.values())
        said = run.succeeds()
    finally:
        run.kill()
    assert "2 processes share this training (gloo)" in said  # the log of the start that failed
    assert "rank 0 of 2: another rank is gone" in said
    assert "Trying to restart job" in said
    assert "going on from step" in log_of(clone)
    meta = json.loads((clone.folder / folder_of("two") / "encoder.json").read_text())
    assert meta["settings"]["ranks"] == 2
    one, two = history(clone, "one"), history(clone, "two")
    # Training enlarges what is rounded otherwise; with two threads in one process just as much (1e-6 after 12 steps,
    # 1e-3 after 100).
    np.testing.assert_allclose(two["loss"][:4], one["loss"][:4], rtol=1e-4)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-2)
    # Two processes on this machine, which nobody disturbed, come to the same bytes.
    weights = f"{folder_of('two')}/encoder.safetensors"
    assert sha256_file(clone.folder / weights) == sha256_file(undisturbed.folder / weights)
    assert not list(clone.folder.glob("work/checkpoints/*"))
    nothing_queued(cluster, clone.folder)


def test_out_of_time_on_two_nodes_they_requeue_once_and_go_on(cluster, tmp_path):
    """A training without end in a partition of one minute: both ranks stop at one step, and go on from there."""
    clone = make_clone(tmp_path / "clone")
    clone.config(**{**CONFIG, "encoders": {"two": {**ENCODER, "epochs": 100_000, "ranks": 2}}})
    clone.run("--cores", "2", "work/tiny/folds.parquet", "work/tiny/px32/store/store.json")
    run = pretrain_two(cluster, clone, "short")
    try:
        saved = int(said_in(clone, r"state saved at step (\d+) of .*, this start began at 0"))
        (job,) = cluster.queue(clone.folder)
        assert int(said_in(clone, r"going on from step (\d+) of")) == saved
        wait_until("both starts in the accounts", lambda: cluster.starts_of(job["id"]) == 2)
        assert [one["id"] for one in cluster.queue(clone.folder)] == [job["id"]]
        assert run.process.poll() is None, run.text
    finally:
        run.process.send_signal(signal.SIGINT)
        run.wait()
    nothing_queued(cluster, clone.folder)


def said_in(clone: Clone, pattern: str) -> str:
    """The first group of what the log comes to say; the next start writes it anew."""
    found: list[str] = []

    def said() -> bool:
        found.extend(re.findall(pattern, log_of(clone)))
        return bool(found)

    wait_until(pattern, said, LONG_S)
    return found[0]
