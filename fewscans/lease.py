"""Whose work it is: on a cluster two copies of a job can run at once; a lease lets one work and the other wait."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fewscans.cluster import deadline, slurm
from fewscans.runrecord import is_alive, process_start

log = logging.getLogger("fewscans")

HEARTBEAT_S = 20.0
# A lease whose owner cannot be asked (another host) is dead after so long without a heartbeat.
DEAD_AFTER_S = 600.0
# Slurm is asked about the owner's job after so long without one, and not again for as long.
ASK_AFTER_S = 60.0
CLUSTER = "SLURM_CLUSTER_NAME"


class LeaseLostError(Exception):
    """Someone else took this lease: we were thought dead. What they make is the same; leave it to them."""


class Lease:
    """A file that names who works here; held by at most one living process, as far as can be told.

    If a dead-looking owner lives after all, both work for a while: files are whole by rename and the results the
    same, so time is lost and nothing else. `check` ends the one who lost.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, dead_after_s: float = DEAD_AFTER_S
    ) -> None:
        self.path = Path(folder) / "lease.json"
        self.dead_after_s = dead_after_s
        self.token = uuid.uuid4().hex
        self._asked = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> str | None:
        """Take the lease if it is free or its owner dead; None on success, else a line about the owner."""
        owner = self._read()
        if owner is not None:
            if not self._is_dead(owner):
                return f"{owner.get('host')} (process {owner.get('pid')}, job {owner.get('job_id') or '-'})"
            self._remove_dead(owner)
        if not self._create():
            return "another process that was faster"
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return None

    def check(self) -> None:
        """Raise `LeaseLostError` if the lease is no longer ours."""
        owner = self._read()
        if owner is None or owner.get("token") != self.token:
            raise LeaseLostError(str(self.path))

    def release(self) -> None:
        """Stop the heartbeat and remove the lease, if it is ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        owner = self._read()
        if owner is not None and owner.get("token") == self.token:
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there any more, or state lies in it
            self.path.parent.rmdir()

    def _me(self) -> dict[str, Any]:
        job = deadline.here()
        return {
            "token": self.token, "host": _host(), "pid": os.getpid(), "process_start": process_start(os.getpid()),
            "job_id": job and job.id, "restarts": job and job.restarts, "cluster": os.environ.get(CLUSTER),
            "start": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }  # fmt: skip

    def _create(self) -> bool:
        """A link to a finished file is atomic on network file systems too, and fails where the name is taken."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mine = self.path.with_name(f".lease-{self.token}")
        try:
            mine.write_text(json.dumps(self._me()), encoding="utf-8")
            os.link(mine, self.path)
        except (
            FileExistsError,
            FileNotFoundError,
        ):  # taken, or its owner finished and removed the folder meanwhile
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _read(self) -> dict[str, Any] | None:
        for _ in range(3):
            try:
                return json.loads(self.path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return None
            except (ValueError, OSError):
                time.sleep(0.05)
        return {}

    def _is_dead(self, owner: dict[str, Any]) -> bool:
        if owner.get("host") == _host() and "pid" in owner:
            return not is_alive(int(owner["pid"]), owner.get("process_start"))
        silent_s = self._silent_s()
        if silent_s is None:
            return False
        return silent_s > self.dead_after_s or self._lost_its_job(owner, silent_s)

    def _silent_s(self) -> float | None:
        """Seconds since the last heartbeat; None where the lease is gone meanwhile."""
        try:
            beat = self.path.stat().st_mtime
            # The clock of the file system, since those of two hosts may differ.
            probe = self.path.with_name(f".clock-{self.token}")
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
        except FileNotFoundError:
            return None
        return now - beat

    def _lost_its_job(self, owner: dict[str, Any], silent_s: float) -> bool:
        """Whether the job of an owner on another host has ended, or was started again: its processes are gone then."""
        job, me = owner.get("job_id"), deadline.here()
        if not job or owner.get("cluster") != os.environ.get(CLUSTER):
            return False
        if me is not None and me.id == job:
            return _is_later(me.restarts, owner)
        now = time.monotonic()
        if silent_s < ASK_AFTER_S or now - self._asked < ASK_AFTER_S:
            return False
        self._asked = now
        try:
            if self.path.stat().st_uid != os.getuid():  # jobs of others may be hidden
                return False
            found = slurm.show(job, deadline.ASK_S)
        except (slurm.SlurmError, OSError):
            return False
        restarts = found.get("Restarts", "")
        return (
            found.get("JobState", "gone") in {*slurm.FINAL, "PENDING", "gone"}
            or (restarts.isdigit() and _is_later(int(restarts), owner))
        )  # fmt: skip

    def _remove_dead(self, owner: dict[str, Any]) -> None:
        """Move the dead lease away; if it is not the one we looked at, someone took over first: put it back."""
        aside = self.path.with_name(f".dead-{self.token}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        with contextlib.suppress(ValueError, FileExistsError):
            if json.loads(aside.read_text(encoding="utf-8")).get("token") != owner.get("token"):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)
        log.info(
            "taking over from process %s on %s, which is gone", owner.get("pid"), owner.get("host")
        )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextlib.contextmanager
def lease(
    folder: str | os.PathLike[str],
    finished: Callable[[], bool],
    *,
    dead_after_s: float = DEAD_AFTER_S,
    poll_s: float = 2.0,
) -> Iterator[Lease | None]:
    """Yield the lease of `folder`; or None once `finished()`, since its owner has done the work meanwhile."""
    made = Lease(folder, dead_after_s=dead_after_s)
    told = None
    while not finished():
        owner = made.take()
        if owner is None:
            break
        if owner != told:
            log.info("%s works on this already; waiting", owner)
            told = owner
        time.sleep(poll_s)
    else:
        yield None
        return
    try:
        yield None if finished() else made
    finally:
        made.release()


def _is_later(restarts: int | None, owner: dict[str, Any]) -> bool:
    """Whether this is a later start of the owner's job."""
    before = owner.get("restarts")
    return restarts is not None and before is not None and restarts > before


def _host() -> str:
    """Name of the place where process numbers mean the same; containers on a host may number their own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()
