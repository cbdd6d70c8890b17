"""Seconds and memory of ``fewscans plan`` against ``snakemake -n``, on an ablation of 10,000 jobs.

    python benchmarks/plan.py [--jobs 10000] [--repeats 1]

The two are run in turn, `snakemake -n` without our logger. Of each: wall seconds, CPU seconds, and the most memory of a
process. The bound is 3 times `snakemake -n` and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dry_run import ROOT, our_config


def measured(folder: Path, *command: str) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, MB of the largest process) of a command and those it starts."""
    # A process between, so that its children are counted alone.
    code = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    returned, cpu_s, mb = json.loads(done.stdout.splitlines()[-1])
    if returned not in (0, 2):  # 2: planned, and found not to fit this machine
        raise SystemExit(f"{' '.join(command)}: exit code {returned}")
    return seconds, cpu_s, mb


def main() -> None:
    """Print both, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(our_config(arguments.jobs)))
        run = [
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--configfile",
            "config.yaml",
            "--cores",
            "8",
        ]
        python = [sys.executable, "-m"]
        bare = ["snakemake", "-n", "--workflow-profile", "none", "--quiet", "rules", *run]
        ours = ["fewscans", "plan", *run, "--json", "plan.json"]
        for _ in range(arguments.repeats):
            bare_s, bare_cpu_s, bare_mb = measured(folder, *python, *bare)
            plan_s, plan_cpu_s, plan_mb = measured(folder, *python, *ours)
            jobs = json.loads((folder / "plan.json").read_text())["totals"]["jobs"]
            print(
                f"{jobs:,} jobs: snakemake -n {bare_s:.1f} s ({bare_cpu_s:.1f} s CPU, {bare_mb:.0f} MB), "
                f"fewscans plan {plan_s:.1f} s ({plan_cpu_s:.1f} s CPU, {plan_mb:.0f} MB), "
                f"ratio {plan_s / bare_s:.2f} ({plan_cpu_s / bare_cpu_s:.2f} in CPU time)",
                flush=True,
            )


if __name__ == "__main__":
    main()
