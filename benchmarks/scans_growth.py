"""How the first stages grow with scans: the plan, the reading of folder and table, convert, audit.

    python benchmarks/scans_growth.py [--sizes 2000 6000 20000] [--chunks 8] [--open] [--out FILE.json]

PNG files of 64 pixels (made pictures as in `audit.py`, one in twenty a near copy) in folders of 1,000, with a table of
labels, patients of two scans, and sites. Each step runs in a process of its own: seconds of the processor after its
imports, and the largest resident set (VmHWM), with what it was before the step. The data set is private, as is usual:
`--open` shows names, to see what pseudonyms cost. Powers are between neighbouring sizes, that of n log n beside them.

read     what the Snakefile does with folder and table at its start: checks, fingerprint, number of chunks
plan     ``snakemake -n`` as a whole, another Python: its seconds hold its imports
convert  all chunks, one after the other; `gather` puts their index together
audit    labels, thumbnails, duplicates, groups, findings, shortcut test
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

NAME = "bench"
FOLDER = 1000  # scans


def config(chunks: int, private: bool) -> dict[str, Any]:
    """What a user would write."""
    return {
        "datasets": {NAME: {"root": "raw", "table": "labels.csv", "chunks": chunks, "private": private}},
        "recipes": {"px32": {"size": 32}},
        "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet"}},
        "protocols": ["linear"],
        "baselines": ["majority"],
        "budgets": ["all"],
        "validation": {"folds": 2, "seeds": 1, "draws": 1},
    }  # fmt: skip


def make(n: int) -> None:
    """The data set, below `raw`."""
    from audit import pictures
    from PIL import Image

    for i, picture in enumerate(pictures(n)):
        path = Path(_path(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    with open("raw/labels.csv", "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "label", "patient", "site"])
        for i in range(n):
            name = Path(_path(i)).relative_to("raw").as_posix()
            table.writerow([name, "ab"[i // 2 % 2], f"case {i // 2:06d}", f"clinic {i % 4}"])


def _path(i: int) -> str:
    return f"raw/{i // FOLDER:03d}/{i:06d}.png"


def read(plan: Any) -> None:
    """Folder and table, as the Snakefile looks at them."""
    from fewscans.rawdata import check_config, chunks_of, fingerprint

    check_config(plan)
    for _ in range(plan.config.datasets[NAME].chunks):  # each job is asked
        fingerprint(plan.config, NAME)
        chunks_of(plan.config, NAME)


def convert(plan: Any) -> None:
    """All chunks."""
    from fewscans.convert.chunks import write_chunk

    for chunk in range(plan.config.datasets[NAME].chunks):
        write_chunk(_params(plan, chunk), _chunk(chunk))


def gather(plan: Any) -> None:
    """The index of all chunks."""
    from fewscans.convert.chunks import read_converted

    read_converted([_chunk(i) for i in range(plan.config.datasets[NAME].chunks)])


def audit(plan: Any) -> None:
    """As scripts/audit.py does."""
    from fewscans.config.stages import AuditParams
    from scripts import audit as script

    dataset = plan.config.datasets[NAME]
    place = {"root": "raw", "table": "raw/labels.csv", **_private(plan)}
    params = AuditParams(dataset=NAME, columns=dataset.columns, **place)
    folders = [_chunk(i) for i in range(dataset.chunks)]
    where = {"converted": folders, "labels": "work/labels.parquet", "out": "work/audit"}
    script.work(argparse.Namespace(**where), params)


def _params(plan: Any, chunk: int) -> Any:
    from fewscans.config.stages import ConvertParams

    chunks, place = plan.config.datasets[NAME].chunks, {"root": "raw", "table": "raw/labels.csv"}
    return ConvertParams(dataset=NAME, chunk=chunk, chunks=chunks, **place, **_private(plan))


def _private(plan: Any) -> dict[str, str]:
    return {"private": "work/private"} if plan.config.datasets[NAME].is_private else {}


def _chunk(i: int) -> str:
    return f"work/{i}"


STEPS: dict[str, Callable[[Any], None]] = {
    "read": read,
    "convert": convert,
    "gather": gather,
    "audit": audit,
}


def step(name: str, plan: Any) -> None:
    """Run one step here; its seconds and MB as JSON on the last line."""
    for module in ("scripts.audit", "fewscans.convert.image", "scipy.ndimage", "skimage.filters"):
        importlib.import_module(module)  # paid before the clock starts
    before, began = _resident(), time.process_time()
    STEPS[name](plan)
    seconds = time.process_time() - began
    print(
        json.dumps({"s": round(seconds, 2), "mb": round(_resident()), "imports_mb": round(before)})
    )


def _resident() -> float:
    """Largest MB of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


def in_process(folder: Path, *arguments: str) -> dict[str, float]:
    """A step of this script, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        cwd=folder, check=True, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def plan_of(folder: Path) -> dict[str, float]:
    """Seconds and MB of ``snakemake -n``."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--configfile", "config.json"]
    command += ["--snakefile", str(ROOT / "Snakefile")]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("snakemake -n: failed")
    seconds = usage.ru_utime + usage.ru_stime
    return {"s": round(seconds, 2), "mb": round(usage.ru_maxrss / 1024)}


def measure(n: int, chunks: int, private: bool) -> dict[str, Any]:
    """All steps at one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config(chunks, private)))
        in_process(folder, "--make", str(n))
        found: dict[str, Any] = {"scans": n, "plan": plan_of(folder)}
        found |= {one: in_process(folder, "--step", one) for one in STEPS}
    whole = sum(found[one]["s"] for one in STEPS)
    return {**found, "whole": {"s": round(whole, 2)}}


def powers(before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
    """Exponents of seconds between two sizes, and that of n log n."""
    a, b = before["scans"], now["scans"]
    steps = math.log(b / a)
    found = {
        one: round(math.log(max(now[one]["s"], 0.01) / max(before[one]["s"], 0.01)) / steps, 2)
        for one in ("plan", *STEPS, "whole")
    }
    return {**found, "n log n": round(1 + math.log(math.log(b) / math.log(a)) / steps, 2)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sizes", nargs="+", type=int, default=[2000, 6000, 20000])
    made.add_argument("--chunks", type=int, default=8, help="parts in which it is converted")
    made.add_argument("--open", action="store_true", help="a public data set: names are shown")
    made.add_argument("--out", type=Path, help="JSON file to write")
    made.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    made.add_argument("--make", type=int, help=argparse.SUPPRESS)
    given = made.parse_args(argv)
    if given.make:
        make(given.make)
        return 0
    if given.step:
        from fewscans import plan as planning
        from fewscans.config import load

        raw = json.loads(Path("config.json").read_text())
        step(given.step, planning.expand(load(raw, "config")))
        return 0
    cases: list[dict[str, Any]] = []
    for n in sorted(given.sizes):
        case = measure(n, given.chunks, not given.open)
        if cases:
            case["powers"] = powers(cases[-1], case)
        cases.append(case)
        print(json.dumps(case), flush=True)
    from common import write_results

    write_results(given.out, cases, chunks=given.chunks, private=not given.open)
    return 0


if __name__ == "__main__":
    sys.exit(main())
