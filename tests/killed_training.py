"""A training that is killed at random points until it is done; run by test_continuation.py as a process of its own.

It prints what happened, for each method that it is told a line each: ``method NAME``, ``begin STEP``, ``step STEP``,
``saved STEP``, ``killed``, ``done DIGEST``. Every training is a fork of a process that has only imported, and is ended
by SIGKILL. A clock that ticks once per step stands in for the real one, so that the interval of checkpoints is a number
of steps. A training is never more than some lines ahead of who kills it, however slow the machine: it would be done
before its time.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from engine_factory import make_folds, make_known, make_params, make_store

from fewscans import engine, optim
from fewscans.checkpoint import Checkpoint
from fewscans.contracts import read_table
from fewscans.resident import Resident
from fewscans.training_job import Job
from fewscans.training_scans import choose_scans

EVERY, AHEAD = 7, 3


def train(folder: Path, method: str, epochs: int, lines: int, turns: int) -> None:
    """Go on from the checkpoint to the end; told to the descriptor `lines`, a line for each byte of `turns`."""

    def say(text: str) -> None:
        os.read(turns, 1)
        os.write(lines, f"{text}\n".encode())

    params = make_params(method, epochs=epochs, ema=0.9, checkpoint_minutes=EVERY / 60)
    device = optim.set_up(params.compute.model_copy(update={"device": "cpu"}))
    store = make_store(folder / "store", n=12)
    folds = make_folds(folder / "folds.parquet", store.scans)
    sources = choose_scans(read_table(folds, "folds"), params, [store])
    known = make_known(len(sources.scans))
    job = Job(params, sources, Resident(store, sources.scans), device, known=known)
    ticks = [0]

    class Clock:
        perf_counter = staticmethod(time.perf_counter)

        @staticmethod
        def monotonic() -> float:
            return float(ticks[0])

    engine.time = Clock  # type: ignore[assignment]
    make_method, save = job.make_method, Checkpoint.save

    def counted() -> object:
        method = make_method()
        after = method.after_step

        def after_step(step: int, n: int) -> None:
            after(step, n)
            ticks[0] += 1
            say(f"step {step}")

        method.after_step = after_step  # type: ignore[method-assign]
        return method

    def told(self: Checkpoint, state: dict) -> None:
        save(self, state)
        say(f"saved {state['training']['step']}")

    job.make_method, Checkpoint.save = counted, told  # type: ignore[assignment,method-assign]
    say("begin")
    job.train(job.checkpoint(folder / "checkpoints"))
    whole = hashlib.sha256()
    for name, value in sorted(job.method.state_dict().items()):
        whole.update(name.encode() + value.numpy().tobytes())
    say(f"done {whole.hexdigest()}")


def main() -> None:
    """Arguments: folder, number of kills, seed, epochs, methods."""
    folder = Path(sys.argv[1])
    kills, seed, epochs = map(int, sys.argv[2:5])
    for method in sys.argv[5:]:
        print(f"method {method}")
        kill_and_go_on(folder / method, method, epochs, kills, random.Random(seed))


def kill_and_go_on(folder: Path, method: str, epochs: int, kills: int, rng: random.Random) -> None:
    """Train to the end, killed so many times on the way."""
    for kill in range(kills + 1):
        out, lines = os.pipe()
        turns, more = os.pipe()
        os.write(more, bytes(AHEAD))
        child = os.fork()
        if child == 0:
            os.close(more)
            train(folder, method, epochs, lines, turns)
            os._exit(0)
        os.close(lines)
        left = rng.randint(5, min(30, 2 * epochs - 2)) if kill < kills else -1
        with os.fdopen(out) as reader:
            for line in reader:
                print(line, end="")
                left -= 1
                if left == 0:
                    time.sleep(rng.random() * 0.01)
                    os.kill(child, signal.SIGKILL)
                os.write(more, b".")
        os.close(turns)
        os.close(more)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed")


if __name__ == "__main__":
    main()
