"""Processes that share one training: who this one is, and how they are all started. No torch here.

A script whose settings say ``ranks: N`` is started once. That process becomes a parent: in a Slurm job with N tasks it
starts them with srun on the job's nodes, anywhere else N processes on this machine; each of them finds here which it
is. Started by ``srun -n N`` or by torchrun, the script is a rank at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewscans.cluster import slurm
from fewscans.cluster.deadline import hearing
from fewscans.errors import UserError
from fewscans.slots import Cards, visible_cards

# How a rank that its parent started finds the others; ranks of torchrun have MASTER_ADDR and MASTER_PORT.
RENDEZVOUS = "FEWSCANS_RENDEZVOUS"
# A rank whose fellow died notices at once and has this long to say so and to leave; then it is ended.
GRACE_S = 30.0


@dataclass(frozen=True)
class Place:
    """One process among those that share a training."""

    rank: int
    """From 0; the first one reads and writes for all."""
    size: int
    """Number of ranks."""
    rendezvous: str
    """Where they meet: ``file:///...`` or ``tcp://HOST:PORT``."""


def find_place(n: int) -> Place | None:
    """Place of this process among `n` ranks; None where they have yet to be started.

    Raises
    ------
    UserError
        The process was started as one of another number than `n`.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        address = f"tcp://{env.get('MASTER_ADDR', '127.0.0.1')}:{env.get('MASTER_PORT', '29500')}"
        found = Place(int(env["RANK"]), int(env["WORLD_SIZE"]), env.get(RENDEZVOUS, address))
        local_rank = int(env.get("LOCAL_RANK", "0"))
    elif int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # set by srun, and not in a batch script
        found, local_rank = _slurm_place()
    else:
        return None
    if found.size != n:
        raise UserError(
            f"started as {found.size} processes, and the encoder says `ranks: {n}`. Start {n}, or one: it "
            "starts the others."
        )
    if RENDEZVOUS not in env:
        _choose_card(local_rank)
    return found


def _slurm_place() -> tuple[Place, int]:
    """Place by submitit's reading of Slurm's variables, and the rank on this node."""
    try:
        from submitit.helpers import TorchDistributedEnvironment
    except ImportError:
        raise UserError(
            "ranks on Slurm need submitit. Install it: pip install 'fewscans[slurm]'"
        ) from None
    # submitit asks this variable whether it is at home; trials of a search set it themselves.
    before = os.environ.get("SUBMITIT_EXECUTOR")
    os.environ["SUBMITIT_EXECUTOR"] = "slurm"
    try:
        # Without export(): it would replace the CUDA_VISIBLE_DEVICES that Slurm made, also where those are UUIDs.
        found = TorchDistributedEnvironment()
    finally:
        if before is None:
            del os.environ["SUBMITIT_EXECUTOR"]
        else:
            os.environ["SUBMITIT_EXECUTOR"] = before
    address = _address(found.master_addr)
    place = Place(found.rank, found.world_size, f"tcp://{address}:{found.master_port}")
    return place, found.local_rank


def _address(node: str) -> str:
    """`node` where its name can be looked up, else the address that Slurm has for it."""
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        said = slurm.pairs(slurm.run(["scontrol", "-o", "show", "node", node]))
        return said.get("NodeAddr", node)
    return node


def _choose_card(local_rank: int) -> None:
    """Where all cards of the node are seen, keep the one of this rank, under the name that it was given."""
    cards = visible_cards()
    if len(cards) < 2:  # none, or the one that Slurm bound to this task
        return
    if local_rank >= len(cards):
        raise UserError(
            f"rank {local_rank} of this node has no GPU: it sees {len(cards)}. Ask for one GPU per task."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = cards[local_rank]


def start(n: int, command: Sequence[str], *, threads: int, take: Callable[[int], Cards]) -> int:
    """Run `command` as `n` ranks to the end; the exit code of the first one that failed, else 0.

    Parameters
    ----------
    threads
        CPUs of each rank.
    take
        Takes as many cards of this machine; only asked where no Slurm job has them already.
    """
    nodes = _nodes(n)
    if nodes is not None:
        # Numbers are said again, since Snakemake's job step drops Slurm's variables. One rank lost is all lost.
        srun = ["srun", f"--nodes={nodes}", f"--ntasks={n}", f"--cpus-per-task={threads}"]
        child = subprocess.Popen([*srun, "--kill-on-bad-exit=1", *command])
        with _passing_on([child]):
            return _exit_code(child.wait())
    cards = take(n)
    with tempfile.TemporaryDirectory(prefix="fewscans-ranks-") as folder:
        return _start_here(n, command, cards, f"file://{folder}/meet")


def _nodes(n: int) -> int | None:
    """Nodes of the Slurm job that this is, if it was made for `n` tasks; None elsewhere."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    if not (slurm.available("srun") and slurm.available("scontrol")):
        raise UserError(
            f"job {job} of Slurm has not srun and scontrol to start its ranks with, as in a container without them. "
            "Bind them into it, take the profile without containers, or set `ranks: 1`."
        )
    for attempt in range(4):
        time.sleep(15 if attempt else 0)
        with contextlib.suppress(slurm.SlurmError):  # the controller may be away for a moment
            facts = slurm.show(job)
            return int(facts["NumNodes"]) if facts.get("NumTasks") == str(n) else None
    raise UserError(
        f"Slurm does not say on which nodes job {job} runs, so its ranks cannot be started."
    )


def _start_here(n: int, command: Sequence[str], cards: Cards, rendezvous: str) -> int:
    env = {**os.environ, "WORLD_SIZE": str(n), RENDEZVOUS: rendezvous}
    # All are here: no other interface is needed, or to be trusted.
    if Path("/sys/class/net/lo").exists():
        env = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", **env}
    children: list[subprocess.Popen[bytes]] = []
    with _passing_on(children):
        try:
            for rank in range(n):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                if cards.names:
                    own["CUDA_VISIBLE_DEVICES"] = cards.names[rank]
                # The locks of the cards go along: should this process be killed, they stay taken while a rank lives.
                children.append(
                    subprocess.Popen(command, env={**env, **own}, pass_fds=tuple(cards.descriptors))
                )
            return _wait(children)
        finally:
            _end(children)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended well, or one has not and the others had time to leave by themselves."""
    until, code = float("inf"), 0
    while True:
        ended = [child.poll() for child in children]
        failed = next((status for status in ended if status), 0)
        if failed and not code:
            until, code = time.monotonic() + GRACE_S, _exit_code(failed)
        if None not in ended or time.monotonic() > until:
            return code
        time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: first asked, then killed."""
    for act in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for child in children:
            if child.poll() is None:
                act(child)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(child.poll() is None for child in children):
            time.sleep(0.05)


def _exit_code(status: int) -> int:
    """As a shell has it: 128 and the signal's number for a process that a signal ended."""
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def _passing_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Give what asks to stop to all of `children`: they save their state and end, and so do we."""

    def give(number: int, *_: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with hearing(give):
        yield
