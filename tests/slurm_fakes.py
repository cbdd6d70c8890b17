"""A ``scontrol`` that answers from a folder, for tests of what a job asks Slurm about itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewscans.cluster import deadline

SCONTROL = """#!/bin/sh
echo "$*" >> "$FAKE_SLURM/asked"
[ "$1" = -o ] && shift
case "$1 $2" in
"show job") [ -e "$FAKE_SLURM/job-$3" ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    cat "$FAKE_SLURM/job-$3";;
"show config") [ -e "$FAKE_SLURM/now" ] || exit 1
    echo "Configuration data as of $(cat "$FAKE_SLURM/now")";;
requeue*) [ -e "$FAKE_SLURM/refuse" ] || exit 0
    echo "Requested operation is presently disabled for job $2" >&2
    exit 1;;
esac
"""


class FakeSlurm:
    """What the fake commands answer; `monkeypatch` puts them first in PATH."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        commands = folder / "bin"
        commands.mkdir(parents=True)
        (commands / "scontrol").write_text(SCONTROL)
        (commands / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(folder))

    def job(self, job: int, *, left_s: float = 3600, limit_s: float = 7200, **facts) -> None:
        """Let job `job` be known."""
        end = int(time.time() + left_s)
        told = {"JobId": job, "JobState": "RUNNING", "Restarts": 0, "StartTime": end - int(limit_s)}
        told |= {"EndTime": end, **facts}
        line = " ".join(f"{key}={value}" for key, value in told.items())
        (self.folder / f"job-{job}").write_text(line + "\n")

    def now(self, seconds: float) -> None:
        """Let the controller's clock say so."""
        (self.folder / "now").write_text(str(int(seconds)))

    def refuse(self) -> None:
        """Let no job requeue itself."""
        (self.folder / "refuse").touch()

    def asked(self, word: str = "") -> list[str]:
        """Command lines with `word`."""
        path = self.folder / "asked"
        return (
            [line for line in path.read_text().splitlines() if word in line]
            if path.exists()
            else []
        )


@contextmanager
def fake_slurm(folder: Path, monkeypatch) -> Iterator[FakeSlurm]:
    """The fake commands, and nothing known of a job that this process might be in."""
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    # Asked shortly before an end: a busy machine is no silent controller.
    monkeypatch.setattr(deadline, "ASK_AGAIN_S", deadline.ASK_S)
    deadline.here.cache_clear()
    yield FakeSlurm(folder, monkeypatch)
    deadline.here.cache_clear()
