"""How cost grows with runs and scans: slopes of planning, parsing, aggregating, duplicates and stores.

    python benchmarks/growth.py [--only dag parse aggregate duplicates store]

Each measure is taken at some sizes, one process each; seconds, peak memory, and the slope between the last two. What
follows from them is written in docs/growth.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]


def timed(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """(seconds, peak MB) of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def in_child(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """(seconds, peak MB) of a function, in a process of its own."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        began = time.perf_counter()
        work(*arguments)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(send, f"{seconds} {peak}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    seconds, peak = os.read(receive, 100).decode().split()
    return float(seconds), float(peak)


def show(name: str, unit: str, sizes: Sequence[int], found: Sequence[tuple[float, float]]) -> None:
    """A line per size, and the last slope."""
    for size, (seconds, peak) in zip(sizes, found, strict=True):
        print(f"{name:<12} {size:>8} {unit:<8} {seconds:8.2f} s {peak:8.0f} MB")
    steps = sizes[-1] - sizes[-2]
    slope = [(b - a) / steps for a, b in zip(found[-2], found[-1], strict=True)]
    print(
        f"{name:<12}    slope: {slope[0] * 1000:.3f} ms and {slope[1] * 1024:.1f} kB per {unit}\n"
    )


def dag() -> None:
    """``snakemake -n``, by jobs."""
    from dry_run import our_config

    sizes, found = [500, 2000, 8000], []
    for jobs in sizes:
        with tempfile.TemporaryDirectory() as name:
            Path(name, "config.yaml").write_text(yaml.safe_dump(our_config(jobs)))
            found.append(timed(workflow("-n", "--quiet"), Path(name)))
    show("dag", "jobs", sizes, found)


def parse() -> None:
    """One job's own Snakemake: the same config, a single target."""
    from dry_run import our_config

    sizes, found = [500, 2000, 8000], []
    for jobs in sizes:
        with tempfile.TemporaryDirectory() as name:
            Path(name, "config.yaml").write_text(yaml.safe_dump(our_config(jobs)))
            found.append(timed(workflow("-n", "work/p/folds.parquet", "--quiet"), Path(name)))
    show("parse", "jobs", sizes, found)


def workflow(*arguments: str) -> list[str]:
    """Our workflow with the config of the folder."""
    flags = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
    return [sys.executable, "-m", "snakemake", *flags, *arguments]


def aggregate() -> None:
    """Scores, intervals and verdicts, by fine-tuning jobs; 96 scans of 48 patients, 1,000 resamples."""
    from aggregate_factory import Study

    sizes, found = [], []
    for seeds in (2, 8, 32):
        with tempfile.TemporaryDirectory() as name:
            study = Study(
                Path(name), config={"validation": {"folds": 3, "seeds": seeds, "draws": 2}}
            )
            study.write()
            sizes.append(len(study.plan["runs"]))
            out = ["--plan", "work/plan.json", "--scores", "s.parquet", "--contrasts", "c.parquet"]
            script = [sys.executable, str(ROOT / "scripts/aggregate.py"), *out, "--table", "t.csv"]
            os.environ["PYTHONPATH"] = str(ROOT)
            found.append(timed(script, Path(name)))
    show("aggregate", "runs", sizes, found)


def duplicates() -> None:
    """Near duplicates among scans that share nothing."""
    import numpy as np

    from fewscans.audit.duplicates import find_near

    def work(n: int) -> None:
        pictures = np.random.default_rng(0).random((n, 32, 32), dtype=np.float32)
        find_near(pictures, np.ones(n, bool), 0.98)

    sizes = [2000, 8000, 20000, 40000]
    show("duplicates", "scans", sizes, [in_child(work, n) for n in sizes])


def store() -> None:
    """A store read into memory as training does, by scans of 64 pixels."""
    import numpy as np

    from fewscans.store import voxel_digest

    def work(path: Path) -> None:
        voxels = np.load(path, mmap_mode="r")
        for row in voxels:
            voxel_digest(row)
        np.ascontiguousarray(voxels)

    sizes, found = [1000, 10000, 40000], []
    with tempfile.TemporaryDirectory() as name:
        for n in sizes:
            path = Path(name, f"{n}.npy")
            np.save(path, np.zeros((n, 1, 64, 64), np.int16))
            found.append(in_child(work, path))
    show("store", "scans", sizes, found)


MEASURES = {
    "dag": dag,
    "parse": parse,
    "aggregate": aggregate,
    "duplicates": duplicates,
    "store": store,
}


def main() -> None:
    """Print the measures."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", nargs="*", choices=MEASURES, default=list(MEASURES))
    for name in made.parse_args().only:
        MEASURES[name]()


if __name__ == "__main__":
    main()
