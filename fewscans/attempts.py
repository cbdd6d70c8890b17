"""A training from its last checkpoint to its end, and what is tried where it fails.

A training that diverges or collapses goes on once from its last sound state at half the learning rate; where the device
is out of memory it begins anew in smaller pieces. What is done follows from the settings and the data alone, never from
the clock: sound states are kept at fixed steps, beside the checkpoints, whose steps depend on how fast a machine is.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fewscans import engine, outofmemory
from fewscans.checkpoint import Checkpoint
from fewscans.cluster import deadline
from fewscans.errors import UserError
from fewscans.gauges import Looks

if TYPE_CHECKING:
    from fewscans.training_job import Job

log = logging.getLogger("fewscans")


@dataclass
class Attempts:
    """The trainings of a job, one after the other, until one comes to its end."""

    job: Job
    checkpoint: Checkpoint
    check: Callable[[], None]
    """Called before a checkpoint; raises where another process has taken over."""
    halved: bool = False
    accumulate: int = 1

    def train(self) -> tuple[engine.Training, engine.Schedule]:
        """The training at its end; the job's `method` is its network.

        Raises
        ------
        UserError
            It failed twice, or does not fit the device.
        ToBeContinuedError
            The job's time is over, or somebody asked to stop; the state is saved.
        """
        job = self.job
        try:
            with deadline.watch(leader=job.ranks.leads) as life:
                return self._until_the_end(life)
        except deadline.ToBeContinuedError as stop:
            # The signal comes to each rank at its own time; all stop by the first one, and a later one ends nobody.
            if job.ranks.size > 1 and stop.why == "signal":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise

    def _until_the_end(self, life: deadline.Watch) -> tuple[engine.Training, engine.Schedule]:
        job = self.job
        state = job.ranks.first(self.checkpoint.load)
        self.halved = bool(state and state["halved"])
        # Micro-batches: more than the settings say where memory has run out.
        self.accumulate = state["accumulate"] if state else job.schedule.accumulate
        while True:
            job.method = job.make_method()
            training = self._training(life)
            schedule = training.schedule
            if state is not None:
                try:
                    training.load(state["training"])
                except (RuntimeError, KeyError, ValueError) as error:
                    if outofmemory.is_out_of_memory(error):
                        raise
                    log.warning(
                        "the checkpoint is not of this training (%s: %s); it begins anew",
                        type(error).__name__, str(error).splitlines()[0],
                    )  # fmt: skip
                    state, self.halved, self.accumulate = None, False, job.schedule.accumulate
                    self.checkpoint.begin_anew()
                    continue
                log.info("going on from step %d of %d", training.step, schedule.n_steps)
            first = training.step
            try:
                training.run()
                return training, schedule
            except engine.StoppedError:
                life.why = job.ranks.first(lambda: life.why)  # the first alone knows of a deadline
                done = f"state saved at step {training.step} of {schedule.n_steps}, this start began at {first}"
                life.stop(done, moved=training.step > first)
            except engine.FailedError as error:
                state = self._once_more(error, schedule)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not outofmemory.is_out_of_memory(error):
                    raise
                self.accumulate = self._more_parts(self.accumulate)
                state = None
                self.checkpoint.begin_anew()
            # Here the error is gone, and with it what it held on the device.
            del training, job.method
            outofmemory.give_back()

    def _training(self, life: deadline.Watch) -> engine.Training:
        job = self.job
        factor = 0.5 if self.halved else 1.0
        schedule = replace(job.schedule, lr=job.schedule.lr * factor, accumulate=self.accumulate)

        def save(state: dict[str, Any]) -> None:
            self.check()
            began = time.monotonic()
            self.checkpoint.save(self._marked(state))
            took = time.monotonic() - began
            life.saved(took)
            log.info("checkpoint at step %d (%.1f s)", state["step"], took)

        def keep(state: dict[str, Any]) -> None:
            if not self.halved:  # there is no further attempt
                self.check()
                self.checkpoint.keep(self._marked(state))

        return engine.Training(
            job.method,
            job.resident,
            schedule,
            known=job.known,
            save=save,
            keep=keep,
            looks=Looks(job.resident, job.seed_key, job.probe_scans),
            stop_collapsed=job.settings.on_collapse == "stop",
            checkpoint_s=job.settings.checkpoint_minutes * 60,
            should_stop=life.should_stop,
            label=job.params.encoder,
            ranks=job.ranks,
        )

    def _marked(self, state: dict[str, Any]) -> dict[str, Any]:
        return {"halved": self.halved, "accumulate": self.accumulate, "training": state}

    def _once_more(
        self, error: engine.FailedError, schedule: engine.Schedule
    ) -> dict[str, Any] | None:
        """The state to go on from at half the learning rate; None: from the start.

        Raises
        ------
        UserError
            It is the second time.
        """
        job = self.job
        if self.halved:
            raise UserError(job.failed(error, schedule.lr)) from None
        kept = job.ranks.first(self.checkpoint.kept)
        state = kept if kept and kept["accumulate"] == self.accumulate else None
        where = f"step {state['training']['step']}" if state else "the start"
        log.warning(
            "%s (%s); once more from %s at half the learning rate", error.what, error, where
        )
        self.halved = True
        if state is None:
            self.checkpoint.begin_anew()
        else:
            # Saved at once: a start after a kill goes on from here too, and does not fail again first.
            state = {**state, "halved": True}
            job.ranks.first(lambda: self.checkpoint.save(state))
        return state

    def _more_parts(self, accumulate: int) -> int:
        """Micro-batches where `accumulate` of them did not fit.

        The training begins from the start, since how far it came depends on what else used the device: the weights are
        those of `accumulate: N`, bit for bit.

        Raises
        ------
        UserError
            They have two scans each already; or other ranks are waiting for this one.
        """
        job = self.job
        name, batch = job.params.encoder, job.schedule.batch_size
        more = 2 * accumulate
        if job.ranks.size > 1 or not job.fits(batch, more):
            way = f"Set `accumulate: {more}`" if job.fits(batch, more) else "Set a smaller `size`"
            raise UserError(
                f"{name}: the device is out of memory with {batch // job.ranks.size // accumulate} scans at once. "
                f"{way}, a smaller backbone or batch_size, or use a device with more memory."
            )
        log.warning(
            "%s: the device is out of memory with %d scans at once; once more from the start with %d micro-batches "
            "(`accumulate: %d`)%s", name, batch // accumulate, more, more,
            ", which compare scans within themselves alone" if job.kind.compares else "",
        )  # fmt: skip
        return more
