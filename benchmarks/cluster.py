"""What a cluster costs beyond the work itself, on a real Slurm on this machine (tests/slurm).

    python benchmarks/cluster.py overhead [--short] [--look 8]
    python benchmarks/cluster.py thousand [--runs 1000] [--pack 25] [--alone 100] [--seconds 3]

`overhead`: the demo on as many one-core nodes as there are cores. Its jobs' own seconds (benchmark files) in the order
of their dependencies give the critical path, and the shortest time on so many cores (list scheduling). Start-up is what
a job holds its node beyond those seconds (two starts of Snakemake), polling the time from the end of the last job that
another waits for to its submission. What these two cost is the difference of two replays of the run, with and without
them, and is taken off the wall time. `--short`: the demo of the tests.

`thousand`: an ablation whose trainings only sleep, on four nodes of two GPUs: packed, and without packing fewer of
them, since each costs this machine seconds of its two cores; the rest is extrapolated, and says so.
"""

from __future__ import annotations

import argparse
import heapq
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from packing import run as run_packed  # noqa: E402

from fewscans.forecast.schedule import Machine, Task, critical_path, run  # noqa: E402
from tests.slurm.cluster import Cluster, missing  # noqa: E402
from tests.slurm.runs import PATIENCE  # noqa: E402
from tests.workflows import CONFIG, make_clone  # noqa: E402

TABLE = "results/ablation_table.csv"


@dataclass
class Done:
    """A job of a run that is over."""

    rule: str
    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    benchmark: str = ""
    slurm: str = ""
    own_s: float = 0.0
    submitted: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    @property
    def start_up_s(self) -> float:
        """Held beyond its own seconds; Slurm's times are whole seconds."""
        return max(0.0, self.ended - self.began - self.own_s)


def read_jobs(said: str) -> list[Done]:
    """Jobs as Snakemake names them while it runs, those sent to Slurm."""
    jobs: dict[str, Done] = {}
    for block in re.split(r"^\[\w{3} \w{3} +\d+ .*\]\n", said, flags=re.MULTILINE)[1:]:
        head = re.match(r"rule (\w+):\n((?:    .*\n)+)", block)
        if head is None:
            continue
        lines = dict(re.findall(r"^    (\w+): (.*)$", head[2], re.MULTILINE))
        jobs[lines["jobid"]] = Done(
            head[1], set(lines.get("input", "").split(", ")) - {""},
            set(lines.get("output", "").split(", ")), lines.get("benchmark", ""),
        )  # fmt: skip
    for job, slurm in re.findall(r"Job (\d+) has been submitted with SLURM jobid (\d+)", said):
        jobs[job].slurm = slurm
    return [job for job in jobs.values() if job.slurm]


def add_times(cluster: Cluster, folder: Path, jobs: list[Done]) -> None:
    """From the accounts, and from the benchmark files."""
    asked = ["sacct", "-X", "-n", "-P", "-o", "JobIDRaw,Submit,Start,End"]
    env = cluster.environment(SLURM_TIME_FORMAT="%s")
    said = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout
    times = {row.split("|")[0]: [float(t) for t in row.split("|")[1:]] for row in said.split()}
    for job in jobs:
        job.submitted, job.began, job.ended = times[job.slurm]
        if job.benchmark:
            job.own_s = float(pd.read_csv(folder / job.benchmark, sep="\t")["s"].iloc[0])


def parse_seconds(folder: Path) -> list[float]:
    """From the start of each Snakemake in a job until it knows its job; whole seconds, so the mean counts."""
    found = []
    for path in (folder / ".snakemake/slurm_logs").rglob("*.log"):
        text = path.read_text(errors="replace")
        for date, shown in re.findall(
            r"^  Date: (.*)\n(?:.*\n)*?\[(.*)\]\n(?:local)?rule", text, re.M
        ):
            began = datetime.strptime(date, "%Y-%m-%d %H:%M:%S")
            found.append((datetime.strptime(shown, "%a %b %d %H:%M:%S %Y") - began).total_seconds())
    return found


def overhead(short: bool, look: int) -> None:
    """Print wall time over critical path, start-up and polling with and without."""
    cores = os.cpu_count() or 2
    with Cluster(nodes=cores, cpus=1) as cluster, tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "demo"
        if short:
            clone = make_clone(folder)
            clone.config(**CONFIG)
            root = folder
        else:
            folder.mkdir()
            root = ROOT
        site = cluster.site(Path(name) / "partitions.yaml")
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"),
            "--directory", str(folder), "--profile", str(root / "profiles/slurm"), *PATIENCE,
            "--slurm-init-seconds-before-status-checks", str(look), TABLE,
        ]  # fmt: skip
        began = time.time()
        done = subprocess.run(
            command, cwd=root, env=cluster.environment(FEWSCANS_SITE=str(site)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        wall = time.time() - began
        if done.returncode:
            raise SystemExit(done.stdout[-6000:])
        jobs = read_jobs(done.stdout)
        add_times(cluster, folder, jobs)
        show_overhead(jobs, wall, began, cores, parse_seconds(folder))


def replay(jobs: list[Done], after: list[tuple[int, ...]], cores: int, everything: bool) -> float:
    """Seconds from the first submission to the last end, in the order of the real starts.

    With everything, or without start-up and polling.
    """
    free = [0.0] * cores
    ends = [0.0] * len(jobs)
    for place in sorted(range(len(jobs)), key=lambda place: jobs[place].began):
        job, before = jobs[place], after[place]
        ready = max((ends[one] for one in before), default=0.0)
        start = max(
            ready + (polling(jobs, before, job) if everything else 0.0), heapq.heappop(free)
        )
        ends[place] = start + job.own_s + (job.start_up_s if everything else 0.0)
        heapq.heappush(free, ends[place])
    return max(ends)


def polling(jobs: list[Done], before: tuple[int, ...], job: Done) -> float:
    """Seconds from the end of the last job that this one waits for to its submission."""
    return max(0.0, job.submitted - max(jobs[one].ended for one in before)) if before else 0.0


def show_overhead(
    jobs: list[Done], wall: float, began: float, cores: int, parsed: list[float]
) -> None:
    """The table."""
    maker = {output: place for place, job in enumerate(jobs) for output in job.outputs}
    after = [tuple({maker[one] for one in job.inputs if one in maker}) for job in jobs]
    waits = [polling(jobs, before, job) for job, before in zip(jobs, after, strict=True) if before]
    own = [Task(job.own_s, after=before) for job, before in zip(jobs, after, strict=True)]
    longest = sum(own[place].seconds for place in critical_path(own))
    ideal = run(own, Machine(slots=cores))
    assert ideal is not None
    told = began + wall - max(job.ended for job in jobs)
    extra = told + replay(jobs, after, cores, True) - replay(jobs, after, cores, False)
    bare = wall - extra
    start_up = [job.start_up_s for job in jobs]
    rows = {
        "jobs sent to Slurm": f"{len(jobs)}",
        "their own seconds": f"{sum(job.own_s for job in jobs):.0f}",
        "critical path": f"{longest:.0f} s",
        f"shortest on {cores} cores": f"{ideal.seconds:.0f} s",
        "wall": f"{wall:.0f} s ({wall / ideal.seconds:.2f} of the shortest)",
        "until the first submission": f"{min(job.submitted for job in jobs) - began:.0f} s",
        "start-up of a job": f"{statistics.mean(start_up):.1f} s ({min(start_up):.1f} to {max(start_up):.1f})",
        "of it parsing, in each of two Snakemakes": f"{statistics.mean(parsed):.1f} s" if parsed else "?",
        "polling before a job": f"{statistics.mean(waits):.1f} s ({min(waits):.0f} to {max(waits):.0f})",
        "polling after the last": f"{told:.0f} s",
        "start-up and polling cost": f"{extra:.0f} s",
        "wall without them": f"{bare:.0f} s ({bare / ideal.seconds:.2f} of the shortest; aim 1.25)",
    }  # fmt: skip
    for what, said in rows.items():
        print(f"| {what} | {said} |")


def thousand(runs: int, pack: int, alone: int, seconds: float) -> None:
    """Print submissions, wall time and idle share, packed and not."""
    gpus = 8
    print(f"trainings that sleep {seconds:g} s; 4 nodes, {gpus} GPUs, {os.cpu_count()} cores here")
    print(
        "| trainings | in a submission | submissions | wall s | idle: of what was held | of all GPUs |"
    )
    print("|---|---|---|---|---|---|")
    with Cluster(nodes=4, gpu_nodes=4) as cluster:
        for count, size in ((runs, pack), (alone, 1)):
            found = run_packed(cluster, size, count, seconds)
            idle = 1 - count * seconds / (gpus * found.wall_s)
            print(
                f"| {count} | {size} | {found.submissions} | {found.wall_s:.0f} "
                f"| {found.idle_share:.0%} | {idle:.0%} |",
                flush=True,
            )
    wall = found.wall_s * runs / max(1, alone)
    idle = 1 - runs * seconds / (gpus * wall)
    print(
        f"| {runs}, extrapolated from {alone} | 1 | {runs} | {wall:.0f} | {found.idle_share:.0%} | {idle:.0%} |"
    )


def main() -> None:
    """What was asked for; both with their defaults if nothing was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind")
    one = kinds.add_parser("overhead")
    one.add_argument("--short", action="store_true", help="the demo of the tests")
    one.add_argument("--look", type=int, default=8, help="seconds before the first look at a job")
    many = kinds.add_parser("thousand")
    many.add_argument("--runs", type=int, default=1000)
    many.add_argument("--pack", type=int, default=25)
    many.add_argument("--alone", type=int, default=100, help="trainings of the run without packing")
    many.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    if missing():
        print(f"left out, not installed: apt install {' '.join(missing())}")
        return
    if arguments.kind in (None, "overhead"):
        overhead(getattr(arguments, "short", False), getattr(arguments, "look", 8))
    if arguments.kind in (None, "thousand"):
        given = arguments if arguments.kind else many.parse_args([])
        thousand(given.runs, given.pack, given.alone, given.seconds)


if __name__ == "__main__":
    main()
