"""Which learning rate a method trains best at where steps are few, without a label: several times slower and faster.

Each method trains the smallest network for `--steps` steps on the training scans of a generated cohort that is not the
demo's (another seed), at each of the rates; `base_lr` is the peak rate at a batch of 256. Two numbers are reported and
no label is read for either: the mean loss of the last tenth of the steps, and the effective rank of the embeddings. The
best rate is that of the smallest loss, among those whose rank is at least half of the largest: some losses are small
where all embeddings are alike.

The jobs are those of the workflow, so what is there already is not trained again.

    python benchmarks/learning_rates.py --work /tmp/rates --cores 2 --out benchmarks/results/learning_rates.json
    python benchmarks/learning_rates.py --work /tmp/rates --methods byol simsiam --rates 0.002 0.004
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from common import ROOT, write_results

from fewscans.config.encoders import ENCODERS
from fewscans.config.encoders.base import PretrainSettings

METHODS = [name for name, kind in ENCODERS.items() if issubclass(kind, PretrainSettings)]
BATCH = 64
RATES = (2e-3, 4e-3, 8e-3, 16e-3)


def encoder(method: str, rate: float, steps: int) -> dict[str, Any]:
    """What the config says of one trial."""
    vit = method == "mae"
    return {
        "method": method, "backbone": "test_vit" if vit else "test_resnet", **({"patch_size": 8} if vit else {}),
        "steps": steps, "batch_size": BATCH, "lr": rate * BATCH / 256, "on_collapse": "keep",
    }  # fmt: skip


def run_trials(work: Path, trials: dict[str, dict[str, Any]], seed: int, cores: int) -> list[Path]:
    """Histories of `trials`, trained by the workflow on fold 0 of a cohort with `seed`."""
    config = work / "config.json"
    work.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({
        "results": str(work / "results"), "work": str(work / "work"),
        "datasets": {"cohort": {
            "phantom": {"n_patients": 150, "seed": seed}, "values": {"labs": {"table": "labs.csv"}},
        }},
        "recipes": {"px48": {"size": 48}}, "encoders": trials, "baselines": ["majority"],
        "budgets": ["all"], "validation": {"folds": 2, "seeds": 1}, "compute": {"threads": 1},
    }))  # fmt: skip
    folders = [work / "work/encoders" / name / "px48/cohort/0/0" for name in trials]
    subprocess.run(
        [sys.executable, "-m", "snakemake", *[str(folder / "encoder.json") for folder in folders],
         "--cores", str(cores), "--quiet", "all", "--keep-going", "--rerun-incomplete",
         "--snakefile", str(ROOT / "Snakefile"), "--directory", str(work), "--configfile", str(config)],
        check=True,
    )  # fmt: skip
    return [folder / "history.parquet" for folder in folders]


def read(history: Path) -> dict[str, float]:
    """Mean loss of the last tenth of the steps, and what the embeddings are like at the end."""
    rows = pq.read_table(history).to_pylist()
    last = [row["loss"] for row in rows if row["step"] > 0.9 * rows[-1]["step"]]
    return {
        "loss": round(sum(last) / len(last), 5), "effective_rank": round(rows[-1]["effective_rank"], 2),
        "embedding_std": round(rows[-1]["embedding_std"], 4),
    }  # fmt: skip


def best(found: dict[float, dict[str, float]]) -> float:
    """Rate of the smallest loss, among those whose rank is at least half of the largest."""
    largest = max(one["effective_rank"] for one in found.values())
    sound = {rate: one for rate, one in found.items() if one["effective_rank"] >= largest / 2}
    return min(sound, key=lambda rate: sound[rate]["loss"])


def main() -> int:
    """Print a line per method; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--seed", type=int, default=1, help="of the cohort; the demo's is 0")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    pairs = [(method, rate) for method in given.methods for rate in given.rates]
    trials = {f"{m}-{rate * 1e4:g}e-4": encoder(m, rate, given.steps) for m, rate in pairs}
    histories = run_trials(given.work.resolve(), trials, given.seed, given.cores)
    made = []
    for method in given.methods:
        found = {r: read(h) for (m, r), h in zip(pairs, histories, strict=True) if m == method}
        made.append({
            "method": method, "best_base_lr": best(found),
            "trials": [{"base_lr": rate, **one} for rate, one in found.items()],
        })  # fmt: skip
        print(json.dumps(made[-1]), flush=True)
    write_results(given.out, made, steps=given.steps, batch=BATCH, cohort_seed=given.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
