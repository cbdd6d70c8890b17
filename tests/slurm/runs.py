"""Workflows on a test cluster, the toy above all: started, brought into trouble, looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until
from tests.slurm.toy.toy import text_of

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ["--profile", str(ROOT / "profiles/slurm")]
# Looks at jobs a little after they usually end; later looks lie 10, 20, ... s further apart.
PATIENCE = [
    "--slurm-init-seconds-before-status-checks", "8", "--latency-wait", "10",
    # Snakemake ends so long after its last submission at the earliest.
    "--max-jobs-per-timespan", "50/1s",
]  # fmt: skip
# Seconds that a run takes here are minutes on a machine that is slow and busy.
LONG_S = 600


@dataclass
class Run:
    """A Snakemake that runs, its output in a file."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.output.read_text(errors="replace")

    def wait(self, seconds: float = LONG_S) -> int:
        """Its exit code.

        Raises
        ------
        AssertionError
            It does not end; it is interrupted, and then killed, as a limit around it would do.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            raise AssertionError(f"still running after {seconds:g} s:\n{self.text}") from None

    def succeeds(self) -> str:
        """What it said, once it has ended well."""
        code = self.wait()
        assert code == 0, f"exit code {code}:\n{self.text}"
        return self.text

    def fails(self) -> str:
        """What it said, once it has ended badly."""
        code = self.wait()
        assert code > 0, f"exit code {code}:\n{self.text}"
        return self.text

    def kill(self) -> None:
        """As by `kill -9`: at once, without a word."""
        self.process.kill()
        self.process.wait()

    def says(self, words: str) -> None:
        """Wait until it has said that, or has ended."""
        with contextlib.suppress(TimeoutError):
            wait_until(words, lambda: words in self.text or self.process.poll() is not None)
        assert words in self.text, self.text


def start(
    cluster: Cluster, folder: Path, command: list[str], env: dict[str, str] | None = None
) -> Run:
    """Start a command in `folder` beside the cluster."""
    number = len(list(folder.glob("run-*.out")))
    output = folder / f"run-{number}.out"
    with output.open("wb") as handle:
        # A shell's own group, as in a terminal; and not a child that ignores SIGINT.
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle,
            env=cluster.environment(**(env or {})), start_new_session=True,
        )  # fmt: skip
    return Run(process, output)


def nothing_queued(cluster: Cluster, folder: Path) -> None:
    """No job of this folder stays in the queue (one that has just been cancelled may take a moment).

    A job that is COMPLETING has ended: after an outage its node may say so a minute late.
    """

    def left() -> list[dict[str, str]]:
        return [job for job in cluster.queue(folder) if job["state"] != "COMPLETING"]

    wait_until(f"an empty queue of {folder}", lambda: not left())


def pause(folder: Path, checkpoints: str, n: int) -> dict[str, int]:
    """Stop `n` trainings in the middle, each once it has written a checkpoint: id of the job -> process."""
    stopped: dict[str, int] = {}

    def enough() -> bool:
        for state in folder.glob(f"{checkpoints}/*/state.pt"):
            with contextlib.suppress(OSError, ValueError):
                # that of a trial lies one folder up
                own = state.with_name("lease.json")
                lease = own if own.exists() else state.parents[1] / "lease.json"
                owner = json.loads(lease.read_text())
                if owner["job_id"] not in stopped:
                    os.kill(owner["pid"], signal.SIGSTOP)
                    stopped[owner["job_id"]] = owner["pid"]
        return len(stopped) == n

    wait_until(f"{n} trainings under way", enough, LONG_S)
    return stopped


def go_on(pids: Iterable[int]) -> None:
    """What was stopped goes on, where it was not killed."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@dataclass
class Toy:
    """The toy workflow in a folder of its own; its runs end with the ``with`` block.

    `parts`, `site` and `settings` may be changed before `start`.
    """

    cluster: Cluster
    folder: Path
    parts: int = 2
    site: dict[str, Any] = field(default_factory=dict)
    """Changes of ``partitions.yaml``."""
    settings: dict[str, object] = field(default_factory=dict)
    """Further keys for --config."""
    runs: list[Run] = field(default_factory=list)
    """Those started so far."""

    def __post_init__(self) -> None:
        (self.folder / "faults").mkdir(parents=True)

    def __enter__(self) -> Toy:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            run.kill()

    def command(self, *more: str) -> list[str]:
        """As a user would type it."""
        values = {"parts": self.parts, **self.settings}
        return [
            sys.executable, "-m", "snakemake", "-s", str(ROOT / "tests/slurm/toy/Snakefile"),
            *PROFILE, *PATIENCE, "--config", *(f"{k}={v}" for k, v in values.items()), *more,
        ]  # fmt: skip

    def start(self, *more: str, **env: str) -> Run:
        """Start it."""
        site = self.cluster.site(self.folder / "partitions.yaml", **self.site)
        made = start(
            self.cluster, self.folder, self.command(*more), {"FEWSCANS_SITE": str(site), **env}
        )
        self.runs.append(made)
        return made

    def start_held(self, *names: str, **env: str) -> tuple[Run, dict[str, int]]:
        """Start it and wait until these jobs are held: the run, and the Slurm job of each."""
        for name in names:
            self.trouble(name, "hold")
        run = self.start(**env)
        return run, {name: self.wait_for(name)[1] for name in names}

    def trouble(self, name: str, words: str) -> None:
        """Bring the job `name` into trouble (see toy.py)."""
        (self.folder / "faults" / name).write_text(words)

    def begun(self, name: str) -> list[tuple[int, int, str]]:
        """Starts of a job in trouble: pid, Slurm job, trouble."""
        path = self.folder / "faults" / f"{name}.begun"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), int(job), word) for pid, job, word in map(str.split, lines)]

    def wait_for(self, name: str, starts: int = 1) -> tuple[int, int]:
        """Wait until `name` has begun so often; pid and Slurm job of the last start."""
        wait_until(f"{name} begun", lambda: len(self.begun(name)) >= starts, LONG_S)
        return self.begun(name)[-1][:2]

    def release(self, *names: str) -> None:
        """What was held goes on, and is not held again."""
        for name in names:
            (self.folder / "faults" / f"{name}.go").touch()

    def ends_well(self, died_writing: int = 0) -> None:
        """The table is that of an undisturbed run, and nothing stays behind but of those that died writing."""
        names = [f"p{i}" for i in range(self.parts)]
        made = [(self.folder / f"work/parts/{name}.txt").read_text() for name in names]
        assert made == [text_of(name, []) for name in names]
        assert (self.folder / "results/table.txt").read_text() == text_of("table", made)
        nothing_queued(self.cluster, self.folder)
        left = [p.name for d in ("work", "results") for p in (self.folder / d).rglob("*.tmp")]
        assert len(left) == died_writing, left
