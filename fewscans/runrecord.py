"""Who runs a workflow in this folder: a record (host, process, start, heartbeat) that is also the lock.

Snakemake's own lock survives a ``kill -9`` and then has to be removed by hand; the profiles switch it off. This one is
taken over where its process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewscans.errors import UserError

HEARTBEAT_S = 15.0
# On another host only the heartbeat can be seen. Network file systems may show it a minute late.
QUIET_AFTER_S = 90.0
DEAD_AFTER_S = 300.0


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


def process_space() -> str:
    """Inside which process numbers mean the same: containers on one host may number their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class RunRecord:
    """The record below ``work/``; at most one living run holds it.

    On this host the process itself is looked at; one on another host (or in a container) is known by its heartbeat.
    """

    def __init__(
        self,
        work: str | os.PathLike[str],
        *,
        dead_after_s: float = DEAD_AFTER_S,
        quiet_after_s: float = QUIET_AFTER_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.path = Path(work) / "run.json"
        self.dead_after_s, self.quiet_after_s = dead_after_s, quiet_after_s
        self.heartbeat_s = heartbeat_s
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self) -> dict[str, Any] | None:
        """What stands there; None where nothing does, empty where it is not readable."""
        return _read(self.path)

    def take(
        self,
        command: Sequence[str],
        *,
        more: Callable[[dict[str, Any]], Sequence[str]] = lambda other: (),
        say: Callable[[str], None] = lambda line: None,
        on_lost: Callable[[str], None] = lambda line: None,
        **facts: Any,
    ) -> str | None:
        """Become the run of this folder; returns a line about a dead run that was taken over.

        Parameters
        ----------
        command
            Of this run; shown to those who come second.
        more
            Further lines about a living run, e.g. its jobs.
        say
            Told while it has to be seen whether another host's run lives.
        on_lost
            Called from the heartbeat's thread when another run has taken the record: we were thought dead.
        facts
            Kept in the record.

        Raises
        ------
        UserError
            Another run lives, here or on another host.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        note = None
        told = False
        while True:
            other = self.read()
            if other is not None and self._is_ours(other):  # the same process, started anew
                other.update(facts)
                self.token = other.get("token", self.token)
                self._replace({**self._me(command), **other})
                break
            mine = {**self._me(command), **facts}
            if other is None:
                if self._create(self.path, mine):
                    break
            elif not self.lives(other):
                mine["earlier"] = earlier_runs(other)
                if self._take_over(other, mine):
                    note = f"took over from a run that is gone ({describe(other)})"
                    break
            elif self._is_here(other) or (self.age_s() or 0.0) < self.quiet_after_s:
                raise UserError("\n".join(self._refusal(other, more)))
            elif not told:
                told = True
                say(
                    f"{self.path}: no sign of life from {describe(other)} for {self.age_s():.0f} s; it counts as "
                    f"gone after {self.dead_after_s:.0f} s. Waiting; Ctrl-C ends this."
                )
            time.sleep(0.05 if other is None else min(1.0, self.dead_after_s / 10))
        self._beat(on_lost)
        return note

    def note(self, **facts: Any) -> None:
        """Add to the record, if it is ours."""
        other = self.read()
        if other is not None and self._is_ours(other):
            self._replace({**other, **facts})

    def release(self) -> None:
        """Give the folder back, if it is ours."""
        self._stop.set()
        other = self.read()
        if other is not None and self._is_ours(other):
            self.path.unlink(missing_ok=True)

    def lives(self, other: dict[str, Any]) -> bool:
        """Whether the run of a record goes on, as far as can be told."""
        if not other.get("pid"):
            return False
        if self._is_here(other):
            return is_alive(int(other["pid"]), other.get("start"))
        age = self.age_s()
        return age is None or age < self.dead_after_s

    def age_s(self) -> float | None:
        """Seconds since the heartbeat, by the clock of the file system, since those of two hosts may differ."""
        probe = self.path.with_name(f".clock-{self.token}")
        try:
            probe.touch()
            return max(0.0, probe.stat().st_mtime - self.path.stat().st_mtime)
        except OSError:
            return None
        finally:
            probe.unlink(missing_ok=True)

    # -- how it is done --------------------------------------------------------------------------------
    def _me(self, command: Sequence[str]) -> dict[str, Any]:
        pid = os.getpid()
        return {
            "token": self.token, "host": socket.gethostname(), "space": process_space(), "pid": pid,
            "start": process_start(pid), "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "command": shlex.join(command), "folder": os.getcwd(),
        }  # fmt: skip

    def _is_here(self, other: dict[str, Any]) -> bool:
        same_host = other.get("host") == socket.gethostname()
        return same_host and other.get("space") in (None, process_space())

    def _is_ours(self, other: dict[str, Any]) -> bool:
        pid = os.getpid()
        return (
            self._is_here(other)
            and other.get("pid") == pid
            and other.get("start") == process_start(pid)
        )

    def _create(self, path: Path, record: dict[str, Any]) -> bool:
        """A link to a finished file is atomic on network file systems too, and fails where the name is taken."""
        mine = path.with_name(f".run-{self.token}")
        mine.write_text(_text(record), encoding="utf-8")
        try:
            os.link(mine, path)
        except FileExistsError:
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _take_over(self, other: dict[str, Any], record: dict[str, Any]) -> bool:
        """Replace a dead record. Only who holds the name made of its token may; it is checked once more under it."""
        claim = self.path.with_name(f".run-after-{other.get('token', '')}")
        if not self._create(claim, record):
            claimant = _read(claim)
            if claimant is not None and not self.lives(claimant):
                claim.unlink(missing_ok=True)
            return False
        try:
            if self.read() != other:  # someone was faster, and is done
                return False
            self._replace(record)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _replace(self, record: dict[str, Any]) -> None:
        temporary = self.path.with_name(f".run-{self.token}")
        temporary.write_text(_text(record), encoding="utf-8")
        os.replace(temporary, self.path)

    def _refusal(
        self, other: dict[str, Any], more: Callable[[dict[str, Any]], Sequence[str]]
    ) -> list[str]:
        lines = [
            f"another run works in this folder: {describe(other)}, started as",
            f"  {other.get('command')}",
            *more(other),
            f"Wait for it, or end it: {end_command(other)}",
        ]
        if not self._is_here(other):
            lines.append(
                f"(last sign of life {self.age_s() or 0:.0f} s ago; without any for {self.dead_after_s:.0f} s the "
                f"folder is free. If you know that it has ended: rm {shlex.quote(str(self.path))})"
            )
        return lines

    def _beat(self, on_lost: Callable[[str], None]) -> None:
        if self._thread is not None:
            return

        def beat() -> None:
            while not self._stop.wait(self.heartbeat_s):
                other = self.read()
                if other is not None and other.get("token") != self.token and other:
                    on_lost(f"{self.path} now belongs to another run ({describe(other)})")
                    return
                with contextlib.suppress(OSError):
                    os.utime(self.path)

        self._thread = threading.Thread(target=beat, name="run-record", daemon=True)
        self._thread.start()


def describe(record: dict[str, Any]) -> str:
    """``pid 12 on HOST``, with the time of its start."""
    since = f", since {record['started']}" if record.get("started") else ""
    return f"pid {record.get('pid')} on {record.get('host')}{since}"


def end_command(record: dict[str, Any]) -> str:
    """What ends that run in order: its jobs are cancelled, what is finished stays."""
    kill = f"kill -INT {record.get('pid')}"
    here = record.get("host") == socket.gethostname()
    return kill if here else f"ssh {record.get('host')} {kill}"


def earlier_runs(record: dict[str, Any]) -> list[str]:
    """Names under which a run and those before it submitted jobs."""
    names = [*record.get("earlier", []), record.get("run_id")]
    return list(dict.fromkeys(name for name in names if name))[-20:]


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, indent=1) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    for _ in range(3):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # a stale handle of a network file system, or not ours
            time.sleep(0.05)
    return {}
