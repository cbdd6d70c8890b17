"""Who runs a workflow in this folder: a record (host, pid, start time) that is also the lock.

Snakemake's own lock survives a ``kill -9`` and then has to be removed by hand; the profiles switch it off. This one is
taken over where its process is gone.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans.errors import UserError
from fewscans.files import write_json


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, as text; None where it does not run (or there is no /proc)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] == "Z" else fields[19]


def is_alive(pid: int, start: str | None) -> bool:
    """Whether the process `pid` that began at `start` still runs on this machine."""
    if Path("/proc/self/stat").exists():
        found = process_start(pid)
        return found is not None and (start is None or found == start)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class RunRecord:
    """The record below ``work/``; at most one living run holds it."""

    def __init__(self, work: str | os.PathLike[str]) -> None:
        self.path = Path(work) / "run.json"

    def read(self) -> dict[str, Any] | None:
        """What stands there, None where nothing does."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return None

    def take(self, command: Sequence[str]) -> str | None:
        """Become the run of this folder; returns a line about a dead run that was taken over.

        Raises
        ------
        UserError
            Another run lives, here or on another host.
        """
        other = self.read()
        note = None
        if other is not None and not self._is_ours(other):
            if other["host"] != socket.gethostname():
                raise UserError(
                    f"{self.path}: a run on host {other['host']} (pid {other['pid']}) holds this folder. "
                    f"If it has ended, remove the file: rm {shlex.quote(str(self.path))}"
                )
            if is_alive(other["pid"], other.get("start")):
                raise UserError(
                    f"another run works in this folder: pid {other['pid']} on {other['host']}, started as\n"
                    f"  {other['command']}\nWait for it, or end it: kill -INT {other['pid']}"
                )
            note = f"took over from a run that is gone (pid {other['pid']} on {other['host']})"
        pid = os.getpid()
        write_json(
            self.path,
            {
                "host": socket.gethostname(),
                "pid": pid,
                "start": process_start(pid),
                "command": shlex.join(command),
            },
        )
        return note

    def release(self) -> None:
        """Give the folder back, if it is ours."""
        other = self.read()
        if other is not None and self._is_ours(other):
            self.path.unlink(missing_ok=True)

    def _is_ours(self, other: dict[str, Any]) -> bool:
        pid = os.getpid()
        return (
            other["host"] == socket.gethostname()
            and other["pid"] == pid
            and other.get("start") == process_start(pid)
        )
