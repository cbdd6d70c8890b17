"""Why an attempt of a job ended, and what the next one asks for.

Slurm says it in states of the job and of its steps, in exit codes and in the job's log, and in other places with every
set-up: a job out of memory is called FAILED in most. Time and memory grow only after what is known to be a time-out or
want of memory; a bug is not cured by more of them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fewscans.cluster import slurm
from fewscans.cluster.deadline import JOB, TO_BE_CONTINUED

log = logging.getLogger("fewscans")

Outcome = Literal[
    "completed",
    "time-out",
    "out-of-memory",
    "preempted",
    "node-failure",
    "cancelled",
    "to-be-continued",
    "failed",
    "unknown",
]
# A time limit is p95 with a margin already; memory misses by more.
TIME_FACTOR, MEMORY_FACTOR = 1.5, 2.0
LOGS = Path(".snakemake/slurm_logs")
ASK_S = 15.0
TAIL_BYTES = 100_000
# Groups share one folder of logs; so many of the newest are searched for a member.
MOST_GROUP_LOGS = 50
KILLED = (9, 137)
# Memory of the host; "CUDA out of memory" and "Out of memory" of other devices are not cured by more of it.
NO_MEMORY = re.compile(
    r"oom[-_ ]kill|exceeded (?:job |step )?memory limit|task \d+: Out Of Memory|^MemoryError\b"
    r"|can't allocate memory",
    re.IGNORECASE | re.MULTILINE,
)
CANCELLED = re.compile(
    r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT [^*\n]*?(?: DUE TO ([A-Z ]+?))? ?\*\*\*"
)
REASONS = {"PREEMPTION": "PREEMPTED", "NODE FAILURE": "NODE_FAIL"}
EXIT_STATUS = re.compile(r"returned non-zero exit status (\d+)|Exited with exit code (\d+)")


@dataclass(frozen=True)
class Row:
    """The job or one of its steps as Slurm's accounts have it."""

    id: str
    """``12``, ``12.batch``, ``12.0``."""
    state: str
    """One word."""
    code: int = 0
    """Exit code."""
    signal: int = 0
    """That ended it."""
    memory_share: float | None = None
    """Most memory seen over what was asked for; None: not known."""


def classify(rows: Sequence[Row], tail: str = "") -> Outcome:
    """Why a job ended.

    Parameters
    ----------
    rows
        The job first, then its steps; of its last start only.
    tail
        The end of the job's log.
    """
    states = {row.state for row in rows}
    job = rows[0].state if rows else ""
    reasons = {found.group(1) or "" for found in CANCELLED.finditer(tail)}
    if job == "COMPLETED":
        return "completed"
    if "OUT_OF_MEMORY" in states or NO_MEMORY.search(tail):
        return "out-of-memory"
    if "TIMEOUT" in states or job == "DEADLINE" or "TIME LIMIT" in reasons:
        return "time-out"
    # A log may hold an earlier start too, which ended otherwise: it is heard where Slurm itself says little.
    if job in ("", "CANCELLED"):
        job = next((state for words, state in REASONS.items() if words in reasons), job)
    if job == "PREEMPTED":
        return "preempted"
    if job in ("NODE_FAIL", "BOOT_FAIL"):
        return "node-failure"
    if _was_killed_full(rows):
        return "out-of-memory"
    if job == "CANCELLED":
        return "cancelled"
    if TO_BE_CONTINUED in {row.code for row in rows} | set(_exit_statuses(tail)):
        return "to-be-continued"
    if job == "FAILED":
        return "failed"
    if not rows and "" in reasons:
        return "cancelled"
    return "failed" if not rows and _exit_statuses(tail) else "unknown"


def _was_killed_full(rows: Sequence[Row]) -> bool:
    """Whether it was killed with its memory used up: nothing else says so where no text is left."""
    killed = any(row.signal in KILLED or row.code in KILLED for row in rows)
    return killed and any((row.memory_share or 0) > 0.95 for row in rows)


def _exit_statuses(tail: str) -> list[int]:
    return [int(found.group(1) or found.group(2)) for found in EXIT_STATUS.finditer(tail)]


# -- asking Slurm ----------------------------------------------------------------------------------


def read_accounts(text: str) -> list[Row]:
    """Rows of the last start, from ``sacct -nP --duplicates --format=JobID,State,ExitCode,MaxRSS,ReqMem``."""
    rows: list[Row] = []
    asked: float | None = None
    for line in text.splitlines():
        job, state, ended, used, wanted = line.split("|")
        if "." not in job:  # a start of the job; its steps follow
            rows = []
            asked = _megabytes(wanted)
        code, _, signal = ended.partition(":")
        most = _megabytes(used)
        share = most / asked if most is not None and asked else None
        rows.append(Row(job, _word(state), _whole(code), _whole(signal), share))
    return rows


def read_controller(shown: Mapping[str, str]) -> list[Row]:
    """The job's row from what ``scontrol show job`` says; none where it does not know it any more."""
    if "JobState" not in shown:
        return []
    code, _, signal = shown.get("ExitCode", "").partition(":")
    return [Row(shown.get("JobId", ""), _word(shown["JobState"]), _whole(code), _whole(signal))]


def ask(job: str) -> list[Row]:
    """Rows of a job, from the accounts or else the controller; none where nobody can say."""
    try:
        command = ["sacct", "-n", "-P", "--duplicates", f"--jobs={job}"]
        rows = read_accounts(
            slurm.run([*command, "--format=JobID,State,ExitCode,MaxRSS,ReqMem"], ASK_S)
        )
        if rows:
            return rows
    except (slurm.SlurmError, ValueError):
        pass
    try:
        return read_controller(slurm.show(job, ASK_S))
    except slurm.SlurmError:
        return []


def _word(state: str) -> str:
    return state.partition(" ")[0].rstrip("+")  # CANCELLED by 1000


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _megabytes(text: str) -> float | None:
    """Of `155230K`, `100M`, `4Gn`; None where it is per CPU (`4Gc`) or nothing."""
    found = re.fullmatch(r"([\d.]+)([KMGT])n?", text)
    if found is None:
        return None
    return float(found.group(1)) * 1024.0 ** ("KMGT".index(found.group(2)) - 1)


# -- what the next attempt asks for ----------------------------------------------------------------

_KNOWN: dict[str, Outcome] = {}


def outcome_of(path: Path) -> Outcome:
    """Why the job with the log `path` (``JOBID.log``) ended; asked for once."""
    job = path.stem
    if job not in _KNOWN:
        found = classify(ask(job), _tail(path))
        if found == "unknown":  # perhaps nobody answered
            return found
        _KNOWN[job] = found
    return _KNOWN[job]


def growth(rule: str, wildcards: Any, attempt: int) -> tuple[float, float]:
    """Factors of time and memory for this attempt, from how the earlier ones ended.

    Only in the main process: a job that finds its own log is not asked again. Never raises, and is (1, 1) outside
    Slurm, for a first attempt, and wherever nothing is known.
    """
    if attempt <= 1:
        return 1.0, 1.0
    try:
        earlier = logs_of(rule, wildcards)[: attempt - 1]
        if os.environ.get(JOB) in {path.stem for path in earlier}:
            return 1.0, 1.0
        ends = [outcome_of(path) for path in earlier]
    except Exception as error:  # a guess about resources must not end a workflow
        log.info("%s: earlier attempts are not known (%s)", rule, error)
        return 1.0, 1.0
    return (
        TIME_FACTOR ** ends.count("time-out"),
        MEMORY_FACTOR ** ends.count("out-of-memory"),
    )


def logs_of(rule: str, wildcards: Any) -> list[Path]:
    """Logs of a job's attempts as the executor leaves them, the newest first, groups' included."""
    named = dict(wildcards.items()) if hasattr(wildcards, "items") else {}
    values = named.values() if named else wildcards
    folder = LOGS / f"rule_{rule}" / "_".join(map(str, values)).replace("/", "_")
    found = list(folder.glob("*.log"))
    groups = _newest(LOGS.glob("group_*/**/*.log"))[:MOST_GROUP_LOGS]
    shown = ", ".join(f"{name}={value}" for name, value in named.items())
    found += [path for path in groups if _ran(path, rule, shown)]
    return _newest(found)


def _newest(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _ran(path: Path, rule: str, wildcards: str) -> bool:
    """Whether a group's log tells of this member."""
    text = path.read_text(encoding="utf-8", errors="replace")
    parts = re.split(rf"^ *(?:local)?rule {re.escape(rule)}:$", text, flags=re.MULTILINE)[1:]
    return any(f"wildcards: {wildcards}\n" in part if wildcards else True for part in parts)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
