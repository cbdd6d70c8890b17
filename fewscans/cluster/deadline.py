"""When a job must stop, and how: the end of its time limit, a SIGTERM, requeueing, "to be continued".

The job asks Slurm once, at its start, when it ends, and counts from there with a clock that nobody sets. Where Slurm
cannot be asked there is no deadline, and a SIGTERM is all the warning there is.

What ends how:

- The deadline: what is done is saved, the job requeues itself (same id, starts from its beginning) and waits for its
  end. Where that is refused the script ends with `TO_BE_CONTINUED`, and Snakemake's `retries` start it again.
- SIGTERM (preemption, scancel, the time limit, a shutdown), and SIGUSR1 or SIGUSR2 (`sbatch --signal`, of scripts that
  are submitted by hand): what is done is saved and the script ends with `TO_BE_CONTINUED`. Whether there is a next
  start is for those to say who sent it, never for the job. A SIGUSR that was ignored before stays ignored.
- A start that moved nothing forward does not requeue itself: it would do so for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NoReturn

from fewscans.cluster import slurm

log = logging.getLogger("fewscans")

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a job to stop."""
TO_BE_CONTINUED = 75
"""Exit code (EX_TEMPFAIL): nothing failed, what is done is kept, start it again."""
JOB, END = "SLURM_JOB_ID", "SLURM_JOB_END_TIME"
ASK_S = 20.0
# Shortly before the end, with nothing saved yet: both questions fit into the margin.
ASK_AGAIN_S = 2.0
# Until a first save has been measured, what one is taken to cost; and what it is never taken to cost less than.
SAVE_GUESS_S, SAVE_FLOOR_S = 30.0, 2.0
# Saves and steps to come may take longer than those that were measured.
SLACK = 2.0
# For requeueing and the ends of the processes around us: a share of the limit between these bounds.
MARGIN_SHARE, MARGIN_S = 0.05, (5.0, 60.0)
# A requeue that was accepted ends the job within KillWait (30 s by default).
WAIT_FOR_END_S = 300.0
# Longer than the leader's question may take.
WAIT_FOR_LEADER_S = ASK_S + 10.0


class ToBeContinuedError(Exception):
    """A start ends before its work does; what is done is kept."""

    def __init__(
        self,
        why: Literal["deadline", "signal"],
        words: str,
        *,
        moved: bool,
        late: bool = False,
        leader: bool = True,
        by: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.why, self.words, self.by = why, words, by
        self.moved = moved
        """Whether this start has brought the work forward."""
        self.late = late
        """Whether the job's time was mostly over when this process began (others of the job had it)."""
        self.leader = leader
        """Of several processes of one training only one talks to Slurm."""
        super().__init__(words)


@dataclass(frozen=True)
class Here:
    """The Slurm job that this process runs in."""

    id: str
    restarts: int | None
    """How often Slurm has started it again; None: not known."""
    end: float | None
    """On `time.monotonic`; None: no limit, or not known."""
    limit_s: float | None
    """Length of the whole job."""


@lru_cache(1)
def here() -> Here | None:
    """The job of this process, asked for once; None outside Slurm."""
    job = os.environ.get(JOB)
    return ask(job) if job else None


def ask(job: str, timeout_s: float = ASK_S) -> Here:
    """What Slurm says of `job`; never raises."""
    try:
        found = slurm.show(job, timeout_s)
    except slurm.SlurmError as error:
        log.info("no answer from Slurm about job %s: %s", job, error.text)
        found = {}
    end = _number(found.get("EndTime")) or _number(os.environ.get(END))
    start = _number(found.get("StartTime"))
    restarts = found.get("Restarts", "")
    return Here(
        job,
        restarts=int(restarts) if restarts.isdigit() else None,
        end=None if end is None else time.monotonic() + end - _now_of_controller(timeout_s),
        limit_s=end - start if end is not None and start is not None else None,
    )


def _now_of_controller(timeout_s: float) -> float:
    """Seconds since 1970 as the controller sees them: its clock and that of a node may differ."""
    with contextlib.suppress(slurm.SlurmError):
        first = slurm.run(["scontrol", "show", "config"], timeout_s).partition("\n")[0]
        told = _number(first.rpartition(" ")[2])
        if told is not None:
            return told
    return time.time()


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


class Watch:
    """Says when to stop.

    Parameters
    ----------
    job
        Where this process runs; None: only a signal stops it.
    leader
        False for the others of several processes of one training.
    clock
        Seconds that only go forward.
    """

    def __init__(
        self, job: Here | None, *, leader: bool = True, clock: Callable[[], float] | None = None
    ) -> None:
        self.job, self.leader = job, leader
        self.clock = clock = clock or time.monotonic
        self.why: Literal["deadline", "signal"] | None = None
        self.began = clock()
        self._save_s: float | None = None
        self._step_s = 0.0
        self._looked: float | None = None
        self._by: signal.Signals | None = None
        if job is not None:
            left = self.left_s
            told = "has no end that is known" if left is None else f"ends in {left / 60:.1f} min"
            log.info("Slurm job %s%s %s", job.id, _again(job.restarts), told)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the job; None: no end."""
        if self.job is None or self.job.end is None:
            return None
        return self.job.end - self.clock()

    @property
    def margin_s(self) -> float:
        """What is left for requeueing and for the processes around us."""
        share = MARGIN_SHARE * ((self.job and self.job.limit_s) or 0.0)
        return min(max(share, MARGIN_S[0]), MARGIN_S[1])

    @property
    def save_s(self) -> float:
        """What the next save may take."""
        if self._save_s is not None:
            return max(SLACK * self._save_s, SAVE_FLOOR_S)
        # A tenth at most of a short job: a guess must not eat it.
        return min(SAVE_GUESS_S, 0.1 * ((self.job and self.job.limit_s) or 10 * SAVE_GUESS_S))

    def saved(self, seconds: float) -> None:
        """Note what a save took; its time is no step's."""
        self._save_s = max(seconds, self._save_s or 0.0)
        self._looked = self.clock()

    def signalled(self, by: signal.Signals) -> None:
        """Somebody asks to stop."""
        self._by = by

    def should_stop(self) -> bool:
        """Whether to save and stop now; asked after each step.

        True as soon as one more step and a save might not fit any more.
        """
        now = self.clock()
        if self._looked is not None:
            self._step_s = max(self._step_s, now - self._looked)
        self._looked = now
        return self._ends_before(SLACK * self._step_s + self.save_s)

    def check(self, ahead_s: float, words: str, *, moved: bool) -> None:
        """Raise `ToBeContinuedError` where the next piece of work, `ahead_s` long, does not fit any more."""
        if self._ends_before(ahead_s):
            self.stop(words, moved=moved)

    def stop(self, words: str, *, moved: bool) -> NoReturn:
        """Raise what ends this start; `words` say how far it came."""
        raise ToBeContinuedError(
            self.why or "signal",
            words,
            moved=moved,
            late=self._is_late(),
            leader=self.leader,
            by=self._by or signal.SIGTERM,
        )

    def _ends_before(self, ahead_s: float) -> bool:
        if self._by is not None:
            self.why = "signal"
        elif self._is_over(ahead_s):
            self._ask_again()
            if self._is_over(ahead_s):
                self.why = "deadline"
        return self.why is not None

    def _ask_again(self) -> None:
        """Somebody may have given the job more time meanwhile."""
        assert self.job is not None
        now = ask(self.job.id, ASK_AGAIN_S)
        if now.end is not None:
            self.job = now

    def _is_over(self, ahead_s: float) -> bool:
        left = self.left_s
        return left is not None and left < ahead_s + self.margin_s

    def _is_late(self) -> bool:
        if self.job is None or self.job.end is None or self.job.limit_s is None:
            return False
        return self.job.end - self.began < 0.5 * self.job.limit_s


def _again(restarts: int | None) -> str:
    return f" (start {restarts + 1})" if restarts else ""


@contextlib.contextmanager
def watch(*, at_once: bool = False, leader: bool = True) -> Iterator[Watch]:
    """Yield what says when to stop, and listen for `SIGNALS` meanwhile.

    Parameters
    ----------
    at_once
        The signal raises `ToBeContinuedError` where it comes: for work of which nothing is saved half way.
    leader
        Of several processes of one training only one knows the deadline, talks to Slurm, and tells the others.
    """
    made = Watch(here() if leader else None, leader=leader)
    if threading.current_thread() is not threading.main_thread():
        yield made
        return

    def on_signal(number: int, *_: object) -> None:
        by = signal.Signals(number)
        made.signalled(by)
        if at_once:
            raise ToBeContinuedError("signal", "what was finished is kept", moved=False, by=by)

    with hearing(on_signal):
        yield made


@contextlib.contextmanager
def hearing(handler: Callable[..., None]) -> Iterator[None]:
    """Give `SIGNALS` to `handler` meanwhile, except those that whoever started this process had it ignore."""
    heard = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, handler) for one in heard}
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, signal.SIG_DFL if old is None else old)


def finish(stop: ToBeContinuedError) -> int:
    """Requeue this job, or say why not; the exit code where the process goes on to live."""
    job = os.environ.get(JOB)
    if not stop.leader:
        # Where one rank's end is the end of all, the one that talks to Slurm would not come to it.
        if stop.why == "deadline":
            time.sleep(WAIT_FOR_LEADER_S)
        return TO_BE_CONTINUED
    if stop.why == "signal":
        log.info(
            "asked to stop (%s): %s. To be continued by the next start.", stop.by.name, stop.words
        )
        return TO_BE_CONTINUED
    if not stop.moved and not stop.late:
        log.error(
            "error: the time limit of this job is too short: it ends before anything could be done that lasts (%s). "
            "Give jobs of this class more time: `min_runtime` in partitions.yaml.",
            stop.words,
        )
        return 2
    if not stop.moved:
        log.info("this job's time was used up by others: %s. To be continued.", stop.words)
        return TO_BE_CONTINUED
    if not job or not _requeue(job, stop.words):
        return TO_BE_CONTINUED
    time.sleep(WAIT_FOR_END_S)
    log.info("job %s was requeued and still runs; leaving. To be continued.", job)
    return TO_BE_CONTINUED


def _requeue(job: str, words: str) -> bool:
    log.info("the job's time is nearly over: %s", words)
    try:
        slurm.requeue(job, ASK_S)
    except slurm.SlurmError as error:
        log.info("job %s cannot be requeued (%s). To be continued by a retry.", job, error.text)
        return False
    log.info("job %s is requeued and goes on from there; waiting for the end of this start", job)
    return True
