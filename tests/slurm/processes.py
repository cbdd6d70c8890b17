"""Processes of one test cluster: started, remembered and ended without ever touching one that is not ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fewscans.runrecord import process_start


def wait_until(what: str, ready: Callable[[], object], seconds: float = 240) -> None:
    """Return as soon as `ready()` is true; the limit is for a machine that is slow and busy.

    Raises
    ------
    TimeoutError
        It was not, in so many seconds; names `what`.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


class Daemons:
    """Daemons by name. One counts as ours only while its pid still has the start time noted with it."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._known: dict[str, tuple[int, str | None, subprocess.Popen[bytes]]] = {}

    def start(self, name: str, command: Sequence[str], env: dict[str, str]) -> None:
        """Run `command` in a session of its own, its output in the file `NAME.out`."""
        with open(self.logs / f"{name}.out", "ab") as out:
            made = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                start_new_session=True,
            )  # fmt: skip
        self._known[name] = (made.pid, process_start(made.pid), made)

    def alive(self, name: str) -> bool:
        """Whether that daemon runs."""
        if name not in self._known:
            return False
        pid, start, made = self._known[name]
        # poll() also reaps it, so that no zombie is left
        return made.poll() is None and process_start(pid) == start

    def end(self, name: str, how: signal.Signals = signal.SIGTERM, patience_s: float = 60) -> None:
        """End it, at last with SIGKILL; nothing happens where it does not run."""
        if self.alive(name):
            made = self._known[name][2]
            made.send_signal(how)
            try:
                made.wait(patience_s)
            except subprocess.TimeoutExpired:
                made.kill()
                made.wait(patience_s)
        self._known.pop(name, None)

    def said(self, name: str) -> str:
        """Last lines of what it printed."""
        path = self.logs / f"{name}.out"
        return path.read_text(errors="replace")[-600:] if path.exists() else "nothing"


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


def _variables(pid: int) -> set[str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return set()
    return {part.decode(errors="replace") for part in text.split(b"\0")}


def _holds(pid: int, start: str) -> bool:
    """Whether a process holds a file open whose path begins with `start`."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}").startswith(start):
                    return True
    return False


def job_processes(conf: Path, logs: Path, node: str | None = None) -> set[int]:
    """Processes of this cluster's jobs: on `node`, or on all of them.

    Those that carry this cluster's SLURM_CONF and a node's name, and the slurmstepd that hold this cluster's logs.
    """
    found = set()
    for pid in _pids():
        variables = _variables(pid)
        if f"SLURM_CONF={conf}" in variables:
            named = {v.partition("=")[2] for v in variables if v.startswith("SLURMD_NODENAME=")}
            if named and (node is None or node in named):
                found.add(pid)
                continue
        log = f"{logs}/{node}.log" if node else f"{logs}/"
        if _is_stepd(pid) and _holds(pid, log):
            found.add(pid)
    return found


def _is_stepd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd")
    except OSError:
        return False


def kill_all(find: Callable[[], set[int]]) -> None:
    """SIGKILL to the processes that `find` sees, until there are none: also what was just being started.

    The slurmstepd go first: one that outlives its job tells the controller that the job failed.
    """

    def gone() -> bool:
        pids = find()
        for pid in sorted(pids, key=_is_stepd, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until("the end of processes", gone)
