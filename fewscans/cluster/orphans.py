"""Jobs that a killed run of the same folder left in the queue: found, then waited for or cancelled.

Snakemake knows nothing of the jobs of an earlier process and would submit them a second time. They are known by their
working directory, by the comment ``rule_NAME...`` and by their name, which is the run id of who submitted them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from fewscans.cluster import reasons, slurm
from fewscans.runrecord import RunRecord

POLL_S = 5.0
TELL_S = 60.0
# One small file per run that submits from this folder: name = run id, content = its run record.
MARKS = Path(".snakemake/fewscans-runs")
SHOWN = 5


def rule_of(job: slurm.Job, rules: Collection[str]) -> str | None:
    """The rule of a job by its comment, the longest that fits; None where it is no job of these rules."""
    if not job.comment.startswith("rule_"):
        return None
    rest = f"{job.comment.removeprefix('rule_')}_"
    fitting = [name for name in rules if rest.startswith(f"{name}_")]
    if not fitting:  # a group: its id, then the names of its rules
        fitting = [name for name in rules if f"_{name}_" in rest]
    return max(fitting, key=len, default=None)


def find(
    folder: str | os.PathLike[str], rules: Collection[str], own: str | None = None
) -> list[slurm.Job]:
    """Jobs in the queue that were submitted from `folder` for one of `rules`, by no run that lives.

    Parameters
    ----------
    own
        Name of this run's jobs.

    Raises
    ------
    SlurmError
        The controller gives no answer.
    """
    here = os.path.realpath(folder)
    found = [
        job
        for job in slurm.jobs()
        if job.name != own
        and rule_of(job, rules) is not None
        and os.path.realpath(job.workdir) == here
    ]
    living = {name for name in {job.name for job in found} if is_living_run(folder, name)}
    return [job for job in found if job.name not in living]


def mark(folder: str | os.PathLike[str], run_id: str, record: Path) -> Path:
    """Note that jobs named `run_id` belong to the run of `record`: a folder may serve two configs at once."""
    path = Path(folder) / MARKS / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(os.path.abspath(record), encoding="utf-8")
    return path


def is_living_run(folder: str | os.PathLike[str], run_id: str) -> bool:
    """Whether a process that goes on submitted the jobs named `run_id`."""
    try:
        path = Path((Path(folder) / MARKS / run_id).read_text(encoding="utf-8"))
    except OSError:
        return False
    record = RunRecord(path.parent)
    other = record.read() or {}
    return other.get("run_id") == run_id and record.lives(other)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the marks of runs that are gone; for when none of their jobs is left."""
    for path in (Path(folder) / MARKS).glob("*"):
        if not is_living_run(folder, path.name):
            path.unlink(missing_ok=True)


def lines(jobs: Iterable[slurm.Job]) -> list[str]:
    """A line per job, the first few: id, rule with wildcards, state, reason."""
    jobs = list(jobs)
    shown = [
        f"  job {job.id}  {job.state:<10} {job.comment or job.name}"
        + (f"  ({job.reason})" if job.state == "PENDING" and job.reason else "")
        for job in jobs[:SHOWN]
    ]
    return [*shown, *([f"  ... and {len(jobs) - SHOWN} more"] if len(jobs) > SHOWN else [])]


def settle(
    find_jobs: Callable[[], list[slurm.Job]],
    setting: str,
    say: Callable[[str], None],
    *,
    poll_s: float = POLL_S,
    tell_s: float = TELL_S,
) -> int:
    """Wait for orphans or cancel them, until none is left; how many there were.

    `setting` is ``wait`` or ``cancel``. Those that can never start are cancelled either way. While the controller does
    not answer, this waits: what it does not know could be submitted twice.
    """
    seen: set[str] = set()
    asked: set[str] = set()
    told_at = silent_at = float("-inf")
    while True:
        try:
            left = find_jobs()
        except slurm.SlurmError as error:
            if not seen and not slurm.available("squeue"):
                return 0
            if time.monotonic() - silent_at >= tell_s:
                silent_at = time.monotonic()
                say(
                    f"Slurm does not say whether jobs of an earlier run are left ({error}); waiting. "
                    "Ctrl-C ends this."
                )
            time.sleep(poll_s)
            continue
        if not left:
            return len(seen)
        doomed = [job for job in left if setting == "cancel" or _never_starts(job)]
        ids, ending = {job.id for job in left}, {job.id for job in doomed}
        if ids - seen or ending - asked or time.monotonic() - told_at >= tell_s:
            told_at = time.monotonic()
            say("\n".join(_tell(left, doomed, setting)))
            # With each telling: a controller that fails may also forget that it was asked.
            _cancel(ending, say)
        seen |= ids
        asked |= ending
        time.sleep(poll_s)


def _never_starts(job: slurm.Job) -> bool:
    return job.state == "PENDING" and reasons.kind(job.reason) in ("never", "requeued-held")


def _cancel(ids: set[str], say: Callable[[str], None]) -> None:
    try:
        slurm.cancel(ids)
    except slurm.SlurmError as error:
        say(f"jobs {', '.join(sorted(ids))} could not be cancelled: {error}")


def _tell(left: list[slurm.Job], doomed: list[slurm.Job], setting: str) -> list[str]:
    states = ", ".join(f"{n} {state}" for state, n in Counter(j.state for j in left).most_common())
    head = f"{len(left)} job(s) of an earlier run of this folder are in the queue ({states})"
    if setting == "cancel":
        return [f"{head}; they are cancelled (orphans: cancel):", *lines(left)]
    said = [f"{head}; waiting for them before anything is submitted:", *lines(left)]
    if doomed:
        said += ["These can never start and are cancelled:", *lines(doomed)]
    ids = " ".join(job.id for job in left[:50])
    said.append(
        f"  Not to wait: scancel {ids} (or `orphans: cancel` in partitions.yaml). Ctrl-C ends this run."
    )
    return said
