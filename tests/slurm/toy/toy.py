"""One job of the toy workflow: sleeps, then writes a text that follows from its name and its inputs alone.

A file ``faults/NAME`` holds the trouble that this job gets into, once:

hold    wait until the file ``faults/NAME.go`` is there
eat     take a GB of memory and keep it
half    write half of the output, through `atomic`, and die of SIGKILL
torn    write half of the output under its final name, as a careless script would, and die of SIGKILL
exit N  end with that code

What was in ``faults/NAME`` when it began is noted in ``faults/NAME.begun``, one line for each start: pid, Slurm job.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from fewscans.cli import date_now
from fewscans.files import atomic

PATIENCE_S = 300


def text_of(name: str, inputs: list[str]) -> str:
    """Some lines that nobody writes by chance."""
    lines = [f"{name} {hashlib.sha256(f'{name} {i}'.encode()).hexdigest()}\n" for i in range(50)]
    return "".join(lines) + "".join(inputs)


def trouble(name: str, out: Path, text: str) -> None:
    """Get into the trouble that is written for this job, if any."""
    note = Path("faults") / name
    if not note.exists():
        return
    word, _, rest = note.read_text().strip().partition(" ")
    with note.with_suffix(".begun").open("a") as handle:
        handle.write(f"{os.getpid()} {os.environ.get('SLURM_JOB_ID', '-')} {word}\n")
    if word == "hold":
        end = time.monotonic() + PATIENCE_S
        while not note.with_suffix(".go").exists() and time.monotonic() < end:
            time.sleep(0.2)
        return
    note.unlink()
    if word == "eat":
        taken = []
        while True:
            if len(taken) < 32:
                taken.append(bytearray(os.urandom(1 << 20)) * 32)
            time.sleep(0.1)
    elif word == "half":
        with atomic(out) as temporary:
            temporary.write_text(text[: len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    elif word == "torn":
        out.write_text(text[: len(text) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        print("as it was asked to")
        sys.exit(int(rest))
    else:
        raise ValueError(f"no trouble is called {word!r}")


def main(argv: list[str]) -> int:
    """NAME SECONDS OUTPUT [INPUTS...]."""
    name, seconds, out, *inputs = argv
    text = text_of(name, [Path(path).read_text() for path in inputs])
    trouble(name, Path(out), text)
    date_now(inputs)  # as every script of the workflow does
    time.sleep(float(seconds))
    with atomic(out) as temporary:
        temporary.write_text(text)
    print(f"{name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
