"""Wall time of the demo by stage, and the share of the cores' time that is training.

    python benchmarks/demo.py            runs the demo in a temporary folder and prints the table
    python benchmarks/demo.py --of DIR   reads a run that is there (its wall time is then unknown)

Start-up is what a training job takes beyond its recorded training seconds: interpreter, imports, reading the store.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
CORES = 2


def run(folder: Path) -> float:
    """Seconds of the demo from nothing, run in `folder`."""
    began = time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--directory",
            str(folder),
            "--cores",
            str(CORES),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def stages(folder: Path) -> pd.DataFrame:
    """Jobs and wall seconds by rule, from Snakemake's benchmark files."""
    rows = []
    for path in sorted((folder / "work/benchmarks").rglob("*.tsv")):
        rule = path.relative_to(folder / "work/benchmarks").parts[0].removesuffix(".tsv")
        rows.append({"rule": rule, "seconds": float(pd.read_csv(path, sep="\t")["s"].iloc[0])})
    return (
        pd.DataFrame(rows)
        .groupby("rule")["seconds"]
        .agg(["count", "sum"])
        .rename(columns={"count": "jobs", "sum": "seconds"})
    )


def training_seconds(folder: Path) -> dict[str, float]:
    """Recorded training seconds of pretraining and of fine-tuning."""
    pretrain = sum(
        json.loads(p.read_text())["device_seconds"]
        for p in folder.glob("work/encoders/*/*/*/*/*/encoder.json")
    )
    finetune = 0.0
    for path in folder.glob("work/predictions/*/*/*/*/*/predictions.parquet"):
        metadata = json.loads(pq.read_schema(path).metadata[b"fewscans"])
        finetune += sum(one["device_seconds"] for one in metadata["runs"])
    return {"pretrain": pretrain, "finetune": finetune}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", help="folder of a finished run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(arguments.of or name)
        wall = None if arguments.of else run(folder)
        table, training = stages(folder), training_seconds(folder)
    table["training"] = pd.Series(training)
    print(table.round(1).to_string(na_rep=""))
    busy, trained = table["seconds"].sum(), sum(training.values())
    print(f"\njobs' seconds {busy:.0f}, of them training {trained:.0f} ({trained / busy:.0%})")
    if wall is not None:
        print(
            f"wall {wall:.0f} s on {CORES} cores: training is {trained / (CORES * wall):.0%} of the cores' time, "
            f"everything else {1 - trained / (CORES * wall):.0%}"
        )


if __name__ == "__main__":
    main()
