"""How far a training is: a bar in a terminal, plain lines at intervals in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

log = logging.getLogger("fewscans")

# A log line each so many seconds; a bar is drawn more often.
LINE_S, BAR_S = 15.0, 0.5


class Progress:
    """Steps done of `n_steps`, images/s, loss and time left, on standard error.

    Parameters
    ----------
    n_steps, done
        Steps in all, and steps that an earlier process did.
    images_per_step
        Scans in a step.
    label
        What is being trained.
    shown
        False for a process that leaves it to another.

    The loss is asked for by a function, and only when something is shown: on a GPU reading it waits for the device.
    """

    def __init__(
        self,
        n_steps: int,
        *,
        images_per_step: int,
        label: str = "",
        done: int = 0,
        shown: bool = True,
    ) -> None:
        self.n_steps, self.images_per_step, self.label = n_steps, images_per_step, label
        self._first = done
        self._bar = None
        self._interval_s = LINE_S
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=n_steps,
                initial=done,
                desc=label,
                unit="step",
                dynamic_ncols=True,
                mininterval=BAR_S,
            )
            self._interval_s = BAR_S
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, done: int, loss: Callable[[], float]) -> None:
        """Step `done` (counted from 1) is finished."""
        now = time.monotonic()
        last = done == self.n_steps
        if now - self._shown < self._interval_s and not last:
            return
        self._shown = now
        seconds = max(now - self._began, 1e-9)
        rate = (done - self._first) / seconds
        images = rate * self.images_per_step
        if self._bar is not None:
            self._bar.set_postfix_str(f"{images:.0f} images/s, loss {loss():.4f}", refresh=False)
            self._bar.update(done - self._bar.n)
            return
        left = duration((self.n_steps - done) / rate)
        line = "%s step %d/%d, %.0f images/s, loss %.4f, %s left"
        log.info(line, self.label, done, self.n_steps, images, loss(), left)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
