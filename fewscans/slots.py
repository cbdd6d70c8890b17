"""GPU cards of this machine, taken one process at a time, so that jobs on it never share one by accident.

Snakemake counts cards (``resources: gpu``) but does not say which job has which. Each job locks a file per card that
it computes on; the system gives the lock back when the process ends, however it ends. Inside a Slurm job nothing is
done: Slurm has chosen already.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewscans.errors import UserError

log = logging.getLogger("fewscans")

POLL_S = 1.0


@dataclass
class Cards:
    """Cards that are ours until released, by the names that CUDA_VISIBLE_DEVICES takes; perhaps none."""

    names: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    """Open lock files; a child that inherits them holds the cards too."""

    def release(self) -> None:
        """Give the cards back before the process ends; it sees no others all the same, since CUDA looks once."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def __enter__(self) -> Cards:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take(n: int, device: str, *, folder: Path | None = None) -> Cards:
    """Take `n` free cards, waiting while there are not as many, and let this process see no others.

    Parameters
    ----------
    device
        ``compute.device``; with ``cpu`` no card is taken.
    folder
        Of the lock files; without it one of this user on this host.

    Raises
    ------
    UserError
        The machine has cards, but fewer than `n`.
    """
    cards = visible_cards()
    if device == "cpu" or "SLURM_JOB_ID" in os.environ or not cards:
        return Cards()
    if len(cards) < n:
        raise UserError(
            f"{n} GPUs are needed, one per rank, and this process sees {len(cards)} ({', '.join(cards)}). Set "
            f"`ranks: {len(cards)}` for the encoder, or `compute.device: cpu`."
        )
    folder = folder or lock_folder()
    told = False
    while (taken := _try(n, cards, folder)) is None:
        if not told:
            log.info("all of %s are in use; waiting for %d", ", ".join(cards), n)
            told = True
        time.sleep(POLL_S)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken.names)
    log.info("computing on card %s", ", ".join(taken.names))
    return taken


def visible_cards() -> list[str]:
    """Cards that this process may use: indices, GPU UUIDs or MIG names as CUDA_VISIBLE_DEVICES has them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA sees what stands before the first invalid name; -1 and NoDevFiles are the usual ways to say none.
        end = next((i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), None)
        return list(dict.fromkeys(names[:end]))
    found = len(glob.glob("/dev/nvidia[0-9]*"))
    if not found and shutil.which(
        "nvidia-smi"
    ):  # cards without device files of their own, as under WSL
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        found = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return [str(i) for i in range(found)]


def lock_folder() -> Path:
    """Folder of this user on this host; not $TMPDIR, which may differ from job to job."""
    base = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    return base / f"fewscans-gpus-{os.getuid()}-{socket.gethostname()}"


def _try(n: int, cards: Sequence[str], folder: Path) -> Cards | None:
    """`n` cards or none at all: who kept some while waiting for more could wait for ever for one who does the same."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    door = _lock(
        folder / "door", wait=True
    )  # one at a time looks around, so nobody sees half a choice
    assert door is not None
    found = Cards()
    try:
        for card in cards:
            descriptor = _lock(folder / _file_name(card), wait=False)
            if descriptor is not None:
                found.names.append(card)
                found.descriptors.append(descriptor)
            if len(found.names) == n:
                return found
        found.release()
        return None
    finally:
        os.close(door)


def _lock(path: Path, *, wait: bool) -> int | None:
    """Descriptor of the locked file; None where another process has it. The files stay: only locks mean anything."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _file_name(card: str) -> str:
    """Names come from outside and may hold anything (MIG-GPU-.../1/0)."""
    return f"card-{hashlib.sha256(card.encode()).hexdigest()[:16]}"
