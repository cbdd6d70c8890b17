"""Seconds of ``snakemake -n`` on 2,000 jobs, against a bare Snakefile with as many; and of nothing to do.

    python benchmarks/dry_run.py [--jobs 2000] [--repeats 3]

The two are run in turn; medians and the ratio of each pair are printed. ``--nothing FOLDER`` times a rerun with nothing
to do in the folder of a finished run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BARE = """
N = {n}
rule all:
    input: expand("out/{{i}}.txt", i=range(N - 1))
rule one:
    output: "out/{{i}}.txt"
    log: "logs/{{i}}.log"
    shell: "touch {{output}} &> {{log}}"
"""


def our_config(jobs: int) -> dict:
    """A config with about `jobs` jobs: seeds are what is turned, above 5,000 jobs the ablation too."""
    seeds = max(1, jobs // 52) if jobs <= 5000 else 50
    epochs = range(10, 100, 10) if jobs <= 5000 else range(10, 6 + jobs // (4 * seeds))
    return {
        "datasets": {"p": {"phantom": {"n_patients": 150}}},
        "recipes": {"px48": {"size": 48}},
        "encoders": {
            "simclr": {"method": "simclr", "backbone": "test_resnet"},
            "mae": {"method": "mae", "backbone": "test_vit"},
        },
        "baselines": ["majority", "random", "scratch"],
        "validation": {"folds": 2, "seeds": seeds, "draws": 1},
        "ablations": {
            "a": {
                "of": "simclr",
                "epochs": list(epochs),
            }
        },
    }


def dry_run(folder: Path, *arguments: str) -> tuple[float, int]:
    """(seconds, jobs) of one dry-run in `folder`."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    totals = [
        line.split()[1]
        for line in (done.stdout + done.stderr).splitlines()
        if line.startswith("total")
    ]
    return seconds, int(totals[-1]) if totals else 0


def main() -> None:
    """Print seconds, jobs and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--nothing", help="folder of a finished run: time a run with nothing to do there"
    )
    arguments = parser.parse_args()
    if arguments.nothing:
        times = []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "snakemake"],
                cwd=arguments.nothing,
                check=True,
                capture_output=True,
            )
            times.append(time.perf_counter() - began)
        print(
            f"nothing to do: median {statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})"
        )
        return
    with tempfile.TemporaryDirectory() as name:
        bare, ours = Path(name, "bare"), Path(name, "ours")
        bare.mkdir()
        ours.mkdir()
        (ours / "config.yaml").write_text(yaml.safe_dump(our_config(arguments.jobs)))
        flags = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
        _, jobs = dry_run(ours, *flags)
        (bare / "Snakefile").write_text(BARE.format(n=jobs))
        pairs = []
        for _ in range(arguments.repeats):
            seconds_bare, jobs_bare = dry_run(bare, "--cores", "1")
            seconds_ours, jobs_ours = dry_run(ours, *flags)
            pairs.append((seconds_ours, seconds_bare))
            print(
                f"ours {jobs_ours} jobs {seconds_ours:.1f} s, bare {jobs_bare} jobs {seconds_bare:.1f} s"
            )
        ratios = [a / b for a, b in pairs]
        print(
            f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
