"""The Slurm commands, called in one way: with a time limit, English messages, no shell, times as seconds.

Standard library only: the wrapper of ``sbatch`` starts from here for every job.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewscans.errors import UserError

TIMEOUT_S = 60.0
# No job name, comment or path holds it; Slurm prints it as it is.
SEPARATOR = "\x1f"
# States of a job that will not run (again), as squeue, scontrol and sacct write them.
FINAL = frozenset(
    [
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    ]
)
# squeue's names of the fields of `Job`; a width of 0 is no padding and no cut.
QUEUE_FIELDS = [
    *("JobArrayID", "Name", "State", "Comment", "WorkDir", "Partition", "NodeList"),
    *("StartTime", "EndTime", "Reason", "RestartCnt"),
]
# sacct's names; Restarts came with 23.11, before that a job has one row per start.
ACCOUNT_FIELDS = [
    *("JobID", "JobName", "State", "Comment", "WorkDir", "Partition", "NodeList"),
    *("Start", "End", "Reason", "ExitCode"),
]


class SlurmError(UserError):
    """A Slurm command that failed: `command`, its `text` (both streams' last words) and exit code, if it ended."""

    def __init__(self, command: Sequence[str], text: str, code: int | None = None) -> None:
        self.command = list(command)
        self.text = text.strip()
        self.code = code
        super().__init__(f"{' '.join(self.command)}: {self.text or f'ended with exit code {code}'}")


@dataclass(frozen=True)
class Job:
    """One job of the queue or of the accounts. Times are seconds since 1970, None where not known."""

    id: str
    """As sbatch gave it; `ARRAY_TASK` for a task of an array."""
    name: str
    """Snakemake's run id for jobs of a workflow."""
    state: str
    """One word, e.g. `RUNNING`, `PENDING`, `TIMEOUT`."""
    comment: str
    """`rule_NAME_wildcards_...` for jobs of a workflow. The accounts know it only once the job has ended."""
    workdir: str
    partition: str
    node: str
    """Nodes as Slurm writes them (`n[1-2]`), empty before the start."""
    start: float | None
    end: float | None
    """Of a running job: when its time limit ends."""
    reason: str
    """Why it waits or ended; `None` is a word of Slurm's too."""
    restarts: int
    """How often Slurm has started it again (requeued, preempted)."""
    exit_code: str = ""
    """`CODE:SIGNAL`, from the accounts only."""

    @property
    def ended(self) -> bool:
        """Whether it is over for good; a job that is being requeued is not."""
        return self.state in FINAL


def available(command: str = "sbatch") -> bool:
    """Whether a Slurm command is installed."""
    return shutil.which(command) is not None


def run(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> str:
    """Standard output of a Slurm command.

    Raises
    ------
    SlurmError
        It is not there, fails, or gives no answer in time.
    """
    # Without the settings of a user's terminal that would change what is printed.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SACCT_", "SINFO_"))
    }
    environment |= {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(
            list(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlurmError(command, f"no answer in {timeout_s:g} s") from None
    except OSError as error:
        raise SlurmError(command, f"cannot be started ({error.strerror})") from None
    if done.returncode:
        raise SlurmError(command, done.stderr or done.stdout, done.returncode)
    return done.stdout


def jobs(
    ids: Iterable[str] | None = None,
    *,
    name: str | None = None,
    ended: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> list[Job]:
    """My jobs in Slurm's queue.

    Parameters
    ----------
    ids
        Only these; unknown ones are left out without an error.
    name
        Only jobs with exactly this name.
    ended
        Also those that have ended and are still remembered (some minutes: MinJobAge).

    Raises
    ------
    SlurmError
        The controller gives no answer.
    """
    if ids is not None:
        wanted = sorted(set(ids))
        return [
            found for some in _portions(wanted) for found in _queue(some, name, ended, timeout_s)
        ]
    return _queue(None, name, ended, timeout_s)


def accounts(
    ids: Iterable[str] | None = None,
    *,
    name: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Job]:
    """My jobs as the accounts (slurmdbd) know them, the last start of each; without `ids` those of today.

    Ids are given out again after some accidents: compare names too.

    Raises
    ------
    SlurmError
        There are no accounts here, or no answer.
    """
    command = ["sacct", "-X", "-n", "-P", "--duplicates", f"--user={os.getuid()}"]
    command += [f"--delimiter={SEPARATOR}", f"--format={','.join(ACCOUNT_FIELDS)}"]
    if name is not None:
        command.append(f"--name={name}")
    portions = [[]] if ids is None else _portions(sorted(set(ids)))
    found: dict[tuple[str, str], Job] = {}
    for some in portions:
        text = run([*command, *([f"--jobs={','.join(some)}"] if some else [])], timeout_s)
        for row in _rows(text, len(ACCOUNT_FIELDS)):
            *fields, exit_code = row
            before = found.get((row[0], row[1]))
            restarts = before.restarts + 1 if before else 0
            found[row[0], row[1]] = _job([*fields, str(restarts)], exit_code)
    return list(found.values())


def show(job_id: str, timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """All that ``scontrol show job`` says, key by key; empty where the id is not known (any more).

    Values with blanks (a comment) are cut at the blank where `` KEY=`` follows nowhere; take names and comments from
    `jobs`.
    """
    try:
        text = run(["scontrol", "-o", "show", "job", job_id], timeout_s)
    except SlurmError as error:
        if "Invalid job id" in error.text or (error.code == 1 and not error.text):
            return {}
        raise
    return pairs(text.strip().partition("\n")[0])


def cancel(ids: Iterable[str], timeout_s: float = TIMEOUT_S) -> None:
    """End these jobs; those that have ended already are no error."""
    for some in _portions(sorted(set(ids))):
        run(["scancel", "--quiet", *some], timeout_s)


def requeue(job_id: str, timeout_s: float = TIMEOUT_S) -> None:
    """Put a running job back into the queue, under the same id."""
    run(["scontrol", "requeue", job_id], timeout_s)


def pairs(line: str) -> dict[str, str]:
    """``Key=value Key=value`` of one line of ``scontrol -o``; a word without `=` belongs to the value before."""
    found: dict[str, str] = {}
    last = ""
    for word in line.split(" "):
        key, equals, value = word.partition("=")
        if equals and key[:1].isupper():
            last = key
            found[last] = value
        elif last:
            found[last] += f" {word}"
    return {key: value.strip() for key, value in found.items()}


def _queue(ids: list[str] | None, name: str | None, ended: bool, timeout_s: float) -> list[Job]:
    fields = ",".join(f"{field}:0{SEPARATOR}" for field in QUEUE_FIELDS).removesuffix(SEPARATOR)
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--Format={fields}"]
    if ended:
        command.append("--states=all")
    if name is not None:
        command.append(f"--name={name}")
    if ids is not None:
        command.append(f"--jobs={','.join(ids)}")
    try:
        text = run(command, timeout_s)
    except SlurmError as error:
        if "Invalid job id" in error.text:  # said where none of them is known
            return []
        raise
    return [_job(row) for row in _rows(text, len(QUEUE_FIELDS))]


def _rows(text: str, width: int) -> list[list[str]]:
    rows = [[part.strip() for part in line.split(SEPARATOR)] for line in text.splitlines() if line]
    for row in rows:
        if len(row) != width:
            raise SlurmError(["squeue or sacct"], f"unexpected answer: {row}")
    return rows


def _job(row: Sequence[str], exit_code: str = "") -> Job:
    job_id, name, state, comment, workdir, partition, node, start, end, reason, restarts = row
    return Job(
        id=job_id,
        name=name,
        state=state.partition(" ")[0].rstrip("+"),  # CANCELLED by 1000
        comment="" if comment == "(null)" else comment,
        workdir=workdir,
        partition=partition,
        node="" if node in ("None assigned", "(null)") else node,
        start=float(start) if start.isdigit() else None,
        end=float(end) if end.isdigit() else None,
        reason=reason,
        restarts=int(restarts) if restarts.isdigit() else 0,
        exit_code=exit_code,
    )


def _portions(ids: list[str], size: int = 500) -> list[list[str]]:
    """Ids in lists that fit on a command line."""
    return [ids[at : at + size] for at in range(0, len(ids), size)]
