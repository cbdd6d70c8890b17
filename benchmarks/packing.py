"""Fine-tuning jobs that share a submission: what packing saves, and what is lost when one of them fails.

    python benchmarks/packing.py [--runs 16] [--seconds 4] [--sizes 1 4 8 16] [--nodes 4]

On a real Slurm of four nodes on this machine (tests/slurm), with the slurm profile and trainings that only sleep. For
each size: submissions, wall time, idle seconds between the members of a submission (Snakemake's own work for each), and
the share of the allocated time in which nobody trained. Then the same with a run that fails at its first start: how
many runs are started again (itself among them), and the wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.slurm.cluster import Cluster, missing  # noqa: E402
from tests.slurm.runs import PATIENCE  # noqa: E402

SNAKEFILE = """
RUNS = range(int(config["runs"]))
rule all:
    input: expand("done/{i}", i=RUNS)
rule finetune:
    output: "done/{i}"
    log: "logs/{i}.log"
    resources: gpu=1, mem_mb=500, runtime=2
    params:
        seconds=config["seconds"],
        bad=config["bad"],
    shell:
        'echo "$SLURM_JOB_ID {wildcards.i} $(date +%s.%N) begin" >> times.txt; sleep {params.seconds}; '
        'if [ {wildcards.i} = {params.bad} ] && [ ! -e failed ]; then touch failed; exit 1; fi; '
        'echo "$SLURM_JOB_ID {wildcards.i} $(date +%s.%N) end" >> times.txt; touch {output}'
"""


@dataclass
class Outcome:
    """Of one run of the workflow."""

    wall_s: float
    submissions: int
    gap_s: float
    idle_share: float
    starts: int


def run(cluster: Cluster, pack: int, runs: int, seconds: float, bad: int = -1) -> Outcome:
    """All runs, `pack` of them in a submission."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE)
        site = cluster.site(folder / "partitions.yaml", pack=pack)
        before = allocations(cluster)
        began = time.perf_counter()
        command = [
            sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles/slurm"),
            "--config", f"runs={runs}", f"seconds={seconds}", f"bad={bad}", *PATIENCE,
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=folder, env=cluster.environment(FEWSCANS_SITE=str(site)), text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        wall = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        lines = [line.split() for line in (folder / "times.txt").read_text().splitlines()]
        held = {job: s for job, s in allocations(cluster).items() if job not in before}
    members = defaultdict(list)
    for job, _, when, what in lines:
        members[job].append((float(when), what))
    gaps = []
    for events in members.values():
        events.sort()
        gaps += [b - a for (a, was), (b, now) in pairwise(events) if (was, now) == ("end", "begin")]
    starts = sum(what == "begin" for *_, what in lines)
    idle = 1 - starts * seconds / max(1.0, sum(held.values()))
    return Outcome(wall, len(held), statistics.mean(gaps) if gaps else 0.0, idle, starts)


def allocations(cluster: Cluster) -> dict[str, float]:
    """Seconds that each job held its nodes."""
    asked = ["sacct", "-X", "-n", "-P", "-o", "JobID,ElapsedRaw"]
    rows = [line.split("|") for line in cluster.run(asked).stdout.splitlines()]
    return {job: float(seconds) for job, seconds in rows}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--nodes", type=int, default=4)
    arguments = parser.parse_args()
    if missing():
        print(f"left out, not installed: apt install {' '.join(missing())}")
        return
    print(f"{arguments.runs} runs of {arguments.seconds:g} s, {os.cpu_count()} cores here")
    print(
        "| pack | submissions | wall s | between members s | idle share | one fails: starts again | wall s |"
    )
    print("|---|---|---|---|---|---|---|")
    with Cluster(nodes=arguments.nodes) as cluster:
        for pack in arguments.sizes:
            good = run(cluster, pack, arguments.runs, arguments.seconds)
            # The middle one of a pack, in the order in which they are named.
            bad = run(cluster, pack, arguments.runs, arguments.seconds, bad=arguments.runs // 2)
            print(
                f"| {pack} | {good.submissions} | {good.wall_s:.0f} | {good.gap_s:.1f} | {good.idle_share:.0%} "
                f"| {bad.starts - arguments.runs} | {bad.wall_s:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
