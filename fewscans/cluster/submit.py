"""The sbatch that Snakemake finds first in PATH: as the real one, but a submission survives a busy controller.

Snakemake counts a failed sbatch as a failed job, so a controller that is away for half a minute would use up all
attempts. Passing failures are tried again for some minutes; anything else is passed on at once, word for word.

A submission whose answer got lost may stand in the queue all the same. Job name (the id of the run) and comment (the
job) identify it; ids that were handed out before are written down, so that an earlier attempt of the same job, or
another group of the same name, is not taken for it.

Two things that Snakemake asks for are put right on the way: GPUs in the form of the site, and nodes that are none.

Standard library only: this starts for every job.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fewscans.cluster import slurm

# Seconds in which a submission is tried again, and between the tries at first and at last.
PATIENCE = "FEWSCANS_SUBMIT_PATIENCE_S"
PATIENCE_S = 600.0
PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
# Looks into the queue for a lost submission, in a row: a controller that wakes up answers the first look before it
# takes in a submission that waited at its door (seen: two jobs of one).
LOOKS = 2
# Seconds after which a silent sbatch is taken for lost.
SILENCE_S = 300.0
# The queue is full for this user or account (AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit, ...), for now:
# nothing was submitted. "Job violates accounting/QOS policy" alone may be about the job's size, and stays.
FULL = (
    "MaxSubmitJob",
    "Resource temporarily unavailable",
    "Slurm temporarily unable to accept job",
)
# The controller was not reached, or was and the answer got lost.
AWAY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Communication connection failure",
    "Connection refused",
    "Connection timed out",
    "Slurm backup controller in standby mode",
    "Unexpected message received",
    "no answer in",
)


def main(arguments: Sequence[str]) -> int:
    """Exit code of sbatch; its output goes where it would have gone."""
    real = real_sbatch()
    if real is None:
        print("sbatch: not installed on this machine (no other one in PATH)", file=sys.stderr)
        return 127
    arguments = ask_for_gpus(list(arguments), os.environ.get("FEWSCANS_GPU_REQUEST", "gpus"))
    arguments = exclude_real_nodes(arguments)
    # A script given through a pipe can be read once only.
    script = sys.stdin.buffer.read() if "/dev/stdin" in arguments else None
    patience = float(os.environ.get(PATIENCE, PATIENCE_S))
    try:
        with handed_out(option(arguments, "--job-name")) as known:
            code, out, err = submit([real, *arguments], known, script, patience)
            if code == 0:
                known.add(job_id(out))
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


def submit(
    command: Sequence[str], known: Ids, script: bytes | None, patience_s: float
) -> tuple[int, str, str]:
    """Exit code and output of the try that counted."""
    arguments = command[1:]
    identity = option(arguments, "--job-name"), option(arguments, "--comment")
    known_by_name = known.path is not None and all(identity)
    deadline = time.monotonic() + patience_s
    pause = PAUSE_S
    perhaps_submitted = False
    while True:
        code, out, err = _call(command, script)
        full, away = _any(FULL, err), _any(AWAY, err)
        if code == 0 or not (full or away) or (away and not full and not known_by_name):
            return code, out, err
        perhaps_submitted = perhaps_submitted or away
        looks = LOOKS
        while True:
            if time.monotonic() + pause > deadline:
                return code, out, f"{err}sbatch: tried again for {patience_s:g} s, in vain\n"
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 1.7)
            if not perhaps_submitted:
                break
            # Only the controller can tell whether it has the job: without its answer, no second submission.
            try:
                found = in_queue(*identity, known)
            except slurm.SlurmError:
                looks = LOOKS
                continue
            if found is not None:
                return (
                    0,
                    f"{found}\n",
                    f"sbatch: the answer was lost; job {found} is in the queue\n",
                )
            looks -= 1
            if looks == 0:
                break


def in_queue(name: str | None, comment: str | None, known: Ids) -> str | None:
    """Id of my job with this name and comment that nobody has been told of; ended ones count."""
    if name is None or comment is None:
        return None
    for job in slurm.jobs(name=name, ended=True):
        if job.comment == comment and job.id not in known.read():
            return job.id
    return None


class Ids:
    """Ids that were handed out in a run; kept on this machine, where its only main process is."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> set[str]:
        """All of them."""
        return set(self.path.read_text().split()) if self.path and self.path.exists() else set()

    def add(self, number: str) -> None:
        """Note one more."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(f"{number}\n")


@contextmanager
def handed_out(name: str | None) -> Iterator[Ids]:
    """The ids of a run, for one submission at a time: two with the same comment are not mixed up."""
    folder = Path(tempfile.gettempdir()) / f"fewscans-sbatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if name is None or folder.stat().st_uid != os.getuid():  # somebody else's: not to be trusted
        yield Ids(None)
        return
    path = folder / hashlib.sha256(name.encode()).hexdigest()[:32]
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Ids(path)


def ask_for_gpus(arguments: list[str], how: str) -> list[str]:
    """The request for GPUs in the form of the site: Snakemake writes `--gpus=[MODEL:]N`, N for the whole job.

    `gres` counts per node, `none` is a cluster without. No GPU at all is asked for by silence, not by `--gpus=0`.
    """
    found = [word for word in arguments if word.startswith("--gpus=")]
    if not found:
        return arguments
    model, colon, count = found[-1].removeprefix("--gpus=").rpartition(":")
    if how == "gpus" and count != "0":
        return arguments
    nodes = int(option(arguments, "--nodes") or 1)
    request = [f"--gres=gpu:{model}{colon}{-(-int(count) // nodes)}"]
    if how == "none" or count == "0":
        request = []
    made: list[str] = []
    for word in arguments:
        if word == found[-1]:
            made += request
        # --ntasks-per-gpu counts in --gpus; tasks are named besides, or one.
        elif word not in found and not word.startswith("--ntasks-per-gpu="):
            made.append(word)
    return made


def exclude_real_nodes(arguments: Sequence[str]) -> list[str]:
    """Without the node ``None assigned``, which the accounts name for a job that waits again after its node died.

    Snakemake takes it for the node that failed, and excludes it from all that it submits later. Unquoted, it comes as
    two words, and sbatch takes the second for its script.
    """
    at = next((i for i, word in enumerate(arguments) if word.startswith("--exclude=")), None)
    if at is None:
        return list(arguments)
    word, rest = arguments[at], arguments[at + 1 :]
    if word.endswith(("=None", ",None")) and rest and rest[0].split(",")[0] == "assigned":
        word, rest = f"{word} {rest[0]}", rest[1:]
    nodes = word.removeprefix("--exclude=").split(",")
    named = [node for node in nodes if node not in ("None assigned", "")]
    return [*arguments[:at], *([f"--exclude={','.join(named)}"] if named else []), *rest]


def option(arguments: Sequence[str], name: str) -> str | None:
    """Value of ``NAME=value`` or ``NAME value``."""
    for at, word in enumerate(arguments):
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
        if word == name and at + 1 < len(arguments):
            return arguments[at + 1]
    return None


def job_id(out: str) -> str:
    """Id in the answer of sbatch, with or without --parsable."""
    words = out.strip().partition(";")[0].split()
    return words[-1] if words else ""


def real_sbatch() -> str | None:
    """The sbatch that comes in PATH after the one of this profile."""
    own = Path(__file__).resolve().parents[2] / "profiles"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".") / "sbatch"
        ours = path.is_file() and _is_wrapper(path, own)
        if path.is_file() and os.access(path, os.X_OK) and not ours:
            return str(path)
    return None


def _is_wrapper(path: Path, own: Path) -> bool:
    """Whether it is our own, of this clone or of a copy: it would call itself for ever."""
    if path.resolve().is_relative_to(own):
        return True
    with path.open("rb") as file:
        return b"fewscans.cluster.submit" in file.read(2000)


def _call(command: Sequence[str], script: bytes | None) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            list(command),
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            capture_output=True,
            timeout=SILENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, "", f"sbatch: no answer in {SILENCE_S:g} s\n"
    return (
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def _any(words: Sequence[str], text: str) -> bool:
    return any(word in text for word in words)
