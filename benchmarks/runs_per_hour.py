"""Runs in an hour of a fixed short ablation: packed, as `fewscans` does it, against a process for each run.

8 arms (two encoders with weights by linear probe, kNN and fine-tuning, a random one by the first two) x 5 folds x 3
seeds x 4 budgets: 480 runs on generated scans of 32 pixels with `test_resnet`. Packed, one process has an encoder's
protocols and budgets on a fold with a seed, 45 processes over one resident store each; apart, each run starts an
interpreter, imports, loads and trains once. Both are scripts/finetune.py on the same files.

A sample is run, turn about: a packed process of each encoder and a single one of each arm, budgets in turn. The rest is
extrapolated: every encoder has 15 packed processes, every arm 60 runs (and 45 more for each further draw). No packing
can win more than the runs of a packed process, 10.7 on average with one draw, 26.7 with three. Processor time is
steadier where others use the machine.

    python benchmarks/runs_per_hour.py --out benchmarks/results/runs_per_hour.json
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
from typing import Any

import numpy as np
import pandas as pd
from common import ROOT, spread, write_results, write_store
from labelled_factory import scan_key

from fewscans import networks
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_metadata, write_table
from fewscans.files import write_json
from fewscans.shape import Shape

ENCODERS = {
    "one": ("linear", "knn", "finetune"), "two": ("linear", "knn", "finetune"), "random": ("linear", "knn"),
}  # fmt: skip
FOLDS, SEEDS, BUDGETS = 5, 3, (8, 16, 32, 0)  # patients; 0 = all
PATIENTS, BACKBONE, SHAPE = 60, "test_resnet", Shape(32)


# What a process of fine-tuning imports sooner or later.
IMPORTS = "import scripts.finetune, fewscans.protocols.source, fewscans.protocols.finetune"


class Study:
    """Its files: store, labels, folds, budgets, two encoders with weights for each fold."""

    def __init__(self, root: Path, steps: int, threads: int, draws: int) -> None:
        self.root, self.steps, self.threads, self.calls = root, steps, threads, 0
        # All in one, and each alone.
        self.draws = [(b, draw) for b in BUDGETS for draw in range(draws if b else 1)]
        patient = np.repeat(np.arange(PATIENTS), 2)
        self.scans = [scan_key(i + 1) for i in range(len(patient))]
        self.patient, self.target = patient, patient % 2
        images = np.random.default_rng(0).integers(0, 128, (len(patient), *SHAPE.full), np.uint8)
        images += (self.target * 64).astype(np.uint8)[:, None, None, None]
        write_store(root / "store", self.scans, SHAPE, images)
        labels = pd.DataFrame({
            "scan": self.scans, "path": self.scans, "patient": [f"p{p}" for p in patient],
            "group": [f"g{p}" for p in patient], "target": np.array(["no", "yes"])[self.target], "split": "",
            "site": "", "status": "ok", "reason": "",
        })  # fmt: skip
        write_table(root / "labels.parquet", "labels", labels)
        folds, self.budgets = [], []
        for fold in range(FOLDS):
            test = patient % FOLDS == fold
            role = np.where(test, "test", "train")
            folds.append(labels[["scan", "group"]].assign(fold=str(fold), role=role))
            pool = [p for p in range(PATIENTS) if p % FOLDS != fold]
            for budget, draw in self.draws:
                turned = pool[draw:] + pool[:draw]
                chosen = np.flatnonzero(np.isin(patient, turned[: budget or None]))
                one = {"fold": str(fold), "budget": str(budget or "all"), "draw": draw}
                self.budgets += [{**one, "scan": self.scans[i], "inner": -1} for i in chosen]
            for encoder in ("one", "two"):
                self._write_encoder(root / encoder / str(fold), np.flatnonzero(~test))
        write_table(root / "folds.parquet", "folds", pd.concat(folds, ignore_index=True))
        write_table(root / "budgets.parquet", "budgets", pd.DataFrame(self.budgets))
        for budget, draw in self.draws:
            is_one = [
                r["budget"] == str(budget or "all") and r["draw"] == draw for r in self.budgets
            ]
            one = pd.DataFrame(self.budgets)[is_one].reset_index(drop=True)
            write_table(root / f"budgets{budget}.{draw}.parquet", "budgets", one)

    def _write_encoder(self, folder: Path, sources: np.ndarray) -> None:
        folder.mkdir(parents=True)
        model = networks.make_encoder(BACKBONE, SHAPE, patch_size=None, init_key=7)
        networks.save_encoder(folder / "encoder.safetensors", model)
        write_json(folder / "encoder.json", {
            "method": "simclr", "input": {"size": SHAPE.size, "channels": 1}, "device_seconds": 1.0,
            "transductive": False, "digest": folder.parent.name, "parents": [],
            "network": {"backbone": BACKBONE, "kwargs": networks.network_kwargs(BACKBONE, SHAPE)},
            "source_scans": [self.scans[i] for i in sources],
        })  # fmt: skip

    def run(
        self, encoder: str, protocols: tuple[str, ...], budget: str, fold: int, seed: int
    ) -> dict[str, Any]:
        """Seconds of a process on the wall and of the processor, and those of its runs alone."""
        self.calls += 1
        out = self.root / f"call{self.calls}"
        method = "random" if encoder == "random" else "simclr"
        params = FinetuneParams.model_validate({
            "encoder": encoder, "settings": {"method": method, "backbone": BACKBONE},
            "recipe": {"size": SHAPE.size}, "recipe_name": "small", "protocols": list(protocols),
            "protocol_settings": {"finetune": {"steps": self.steps, "batch_size": 16, "inner_folds": 0}},
            "dataset": "bench", "classes": [], "fold": str(fold), "seed": seed,
            "compute": {"threads": self.threads, "device": "cpu"},
        })  # fmt: skip
        out.mkdir()
        (out / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
        files = {
            "params": f"@{out / 'params.yaml'}", "store": self.root / "store", "labels": self.root / "labels.parquet",
            "folds": self.root / "folds.parquet", "budgets": self.root / f"budgets{budget}.parquet",
            "predictions": out / "predictions.parquet", "cache": out / "cache",
        }  # fmt: skip
        if encoder != "random":
            files["encoder"] = self.root / encoder / str(fold)
        words = [str(part) for name, path in files.items() for part in (f"--{name}", path)]
        command = [sys.executable, str(ROOT / "scripts/finetune.py"), *words]
        wall, cpu = process(command)
        made = read_metadata(out / "predictions.parquet")["runs"]
        seconds = sum(one["device_seconds"] for one in made)
        return {"runs": len(made), "wall_s": wall, "cpu_s": cpu, "training_s": seconds}


def process(command: list[str]) -> tuple[float, float]:
    """Seconds on the wall and of the processor that a process takes."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    if status:
        raise SystemExit(f"{' '.join(command)}: failed\n{said}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The sample, what follows for all 480 runs, and where the time goes."""
    with tempfile.TemporaryDirectory() as name:
        study = Study(Path(name), given.steps, given.threads, given.draws)
        packed: list[dict[str, Any]] = []
        single: list[dict[str, Any]] = []
        imports: list[float] = []
        for fold, (encoder, protocols) in enumerate(ENCODERS.items()):
            packed.append(study.run(encoder, protocols, "", fold, 0))
            for protocol in protocols:
                budget, draw = study.draws[len(single) % len(study.draws)]
                single.append(study.run(encoder, (protocol,), f"{budget}.{draw}", fold, 0))
                imports.append(process([sys.executable, "-c", IMPORTS])[1])
    jobs, arms = FOLDS * SEEDS, len(single)
    runs = jobs * len(study.draws)
    n = runs * arms
    whole = {
        kind: {
            "packed_s": round(jobs * sum(one[kind] for one in packed), 1),
            "single_s": round(runs * sum(one[kind] for one in single), 1),
        }
        for kind in ("wall_s", "cpu_s")
    }
    import_s = spread(imports, 2)["median"]
    return {
        "runs": n, "packed_processes": jobs * len(packed), "single_processes": n, "steps": given.steps,
        "draws": given.draws, "threads": given.threads, "sample_packed": packed, "sample_single": single,
        "extrapolated": whole,
        "runs_per_hour": {how: round(3600 * n / whole["wall_s"][f"{how}_s"]) for how in ("packed", "single")},
        "ratio_wall": round(whole["wall_s"]["single_s"] / whole["wall_s"]["packed_s"], 2),
        "ratio_processor_time": round(whole["cpu_s"]["single_s"] / whole["cpu_s"]["packed_s"], 2),
        "a_process": {
            "import_s": import_s,
            "other_start_and_load_s": round(
                float(np.median([one["cpu_s"] - one["training_s"] for one in single])) - import_s, 2
            ),
            "training_of_a_single_s": round(float(np.median([one["training_s"] for one in single])), 3),
            "training_of_a_packed_s": round(float(np.median([one["training_s"] for one in packed])), 3),
        },
    }  # fmt: skip


def main() -> int:
    """Print the figures; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--draws", type=int, default=1, help="of each budget but the last")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = measure(given)
    print(json.dumps({k: v for k, v in made.items() if not k.startswith("sample")}, indent=1))
    write_results(given.out, [made])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
