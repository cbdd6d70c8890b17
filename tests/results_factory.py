"""Finished results of a run that never was: files as the workflow leaves them, from seeded random numbers.

Scores are computed from the predictions by the plainest code, so that figures have something true to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewscans.config import CompareSettings, load
from fewscans.contracts import write_table
from fewscans.figures.inputs import Results, read_results
from fewscans.files import write_json
from fewscans.plan import Paths, as_json, expand

ENCODERS = {
    "simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 40},
    "mae": {"method": "mae", "backbone": "test_vit", "epochs": 40},
}
SKILL = {
    "simclr": 1.3,
    "mae": 0.9,
    "simmim": 0.8,
    "imagenet": 1.0,
    "scratch": 0.7,
    "scratch-long": 0.8,
    "random": 0.4,
}


@dataclass(frozen=True)
class Made:
    """Where the files are."""

    root: Path
    plan: Path
    scores: Path
    contrasts: Path
    table: Path
    metric: str

    def read(self) -> Results:
        """As the report reads them."""
        return read_results(
            self.plan,
            self.scores,
            self.contrasts,
            self.table,
            CompareSettings(metric=self.metric),
            self.root,
        )

    def arguments(self) -> list[str]:
        """Of ``scripts/report.py``."""
        names = {
            "--plan": self.plan,
            "--scores": self.scores,
            "--contrasts": self.contrasts,
            "--table": self.table,
        }
        return [text for name, path in names.items() for text in (name, str(path))]


def make_results(
    root: Path,
    *,
    datasets: Sequence[str] = ("phantom",),
    classes: Sequence[str] = ("benign", "malignant"),
    encoders: Mapping[str, Any] = ENCODERS,
    n_patients: int = 60,
    seed: int = 0,
    finding: str = "scans/a.png holds the pixels of scans/b.png",
    **config: Any,
) -> Made:
    """Write everything that the report reads below `root`."""
    text = make_plan(datasets=datasets, encoders=encoders, **config)
    rng = np.random.default_rng(seed)
    for name in datasets:
        cohort = _cohort(name, classes, n_patients, rng)
        _write_audit(root / "work" / name, cohort, finding)
        _write_runs(root, text, name, cohort, list(classes), rng)
    files = Made(
        root, root / "work/plan.json", root / "work/scores.parquet", root / "work/contrasts.parquet",
        root / "results/ablation_table.csv", text["config"]["compare"]["metric"],
    )  # fmt: skip
    write_json(files.plan, text)
    _write_scores(files, text, datasets, list(classes))
    return files


def make_plan(
    *, datasets: Sequence[str] = ("phantom",), encoders: Mapping[str, Any] = ENCODERS, **config: Any
) -> dict[str, Any]:
    """``plan.json`` of a small config."""
    raw = {
        "datasets": {name: {"root": f"/data/{name}", "table": "labels.csv"} for name in datasets},
        "encoders": dict(encoders), "budgets": ["12", "30%", "all"], "recipes": {"size48": {"size": 48}},
        "validation": {"folds": 3, "seeds": 1, "draws": 2}, **config,
    }  # fmt: skip
    return as_json(
        expand(load(raw)), Paths("work", "results"), {"config": "c" * 16, "code": "d" * 16}
    )


def _cohort(
    dataset: str, classes: Sequence[str], n_patients: int, rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for p in range(n_patients):
        for s in range(1 + int(rng.integers(3))):
            fold = str(p // len(classes) % 3)
            row = (
                f"{p:08x}{s:08x}",
                f"scans/p{p}_{s}.png",
                f"{dataset}-{p}",
                f"g{p}",
                classes[p % len(classes)],
                fold,
            )
            rows.append(row)
    cohort = pd.DataFrame(rows, columns=["scan", "path", "patient", "group", "target", "fold"])
    return cohort.assign(split="", site="", status="ok", reason="")


def _write_audit(folder: Path, cohort: pd.DataFrame, finding: str) -> None:
    write_table(folder / "labels.parquet", "labels", cohort.drop(columns="fold"))
    empty = {"scan": "", "path": "", "value": None, "low": None, "high": None}
    findings = [
        {**empty, "check": "exact-duplicate", "severity": "warning", "scan": "00", "path": "scans/a.png",
         "message": finding, "action": "joined into one group"},
        {**empty, "check": "shortcut", "severity": "info", "message": "mean intensity does not tell the label",
         "action": "none", "value": 0.51, "low": 0.43, "high": 0.59},
    ]  # fmt: skip
    write_table(folder / "audit/findings.parquet", "findings", pd.DataFrame(findings))
    groups = pd.DataFrame(
        {"group": ["g1"], "n_patients": [2], "n_scans": [3], "patients": ["p1 p2"]}
    )
    write_table(folder / "audit/groups.parquet", "groups", groups)


def _write_runs(
    root: Path, plan: dict, dataset: str, cohort: pd.DataFrame, classes: list, rng: Any
) -> None:
    index = cohort.target.map(classes.index).to_numpy()
    by_name = {arm["arm"]: arm for arm in plan["arms"]}
    for run in plan["runs"]:
        if run["dataset"] != dataset or not run["arms"]:
            continue
        method = plan["encoders"][run["encoder"]]["method"]
        test = (
            (cohort.fold == run["fold"]).to_numpy()
            if run["fold"] != "official"
            else np.arange(len(cohort)) % 3 == 0
        )
        rows, runs = [], []
        for (b, budget), arm in product(enumerate(plan["budgets"]), run["arms"]):
            for draw in range(1 if budget == "all" else 2):
                skill = SKILL.get(method, 0.0) * (1 + 0.5 * b)
                prob = _prob(index[test], len(classes), skill, rng)
                part = cohort[test][["scan", "patient", "group"]]
                rows.append(part.assign(
                    dataset=dataset, test_dataset=dataset, condition="clean", arm=arm, fold=run["fold"],
                    seed=run["seed"], budget=budget, draw=draw, role="test", inner=-1, target=index[test],
                    prob=list(prob)))  # fmt: skip
                runs.append({"arm": arm, "protocol": by_name[arm]["protocol"], "budget": budget, "draw": draw,
                             "fold": run["fold"], "seed": run["seed"], "n_labelled_patients": [12, 13, 40][b],
                             "n_labelled_scans": [20, 22, 80][b], "flags": [], "choices": {}, "device_seconds": 1.5,
                             "digest": "0" * 16})  # fmt: skip
        facts = {
            "task": "classification",
            "classes": classes,
            "runs": runs,
            "encoder": {"method": method},
        }
        write_table(root / run["predictions"], "predictions", pd.concat(rows), **facts)
        if run["embeddings"]:
            _write_embeddings(
                root / run["embeddings"], cohort, index, test, SKILL.get(method, 0.0), rng
            )
        if run["encoder_folder"]:
            _write_encoder(root / run["encoder_folder"], method, rng)


def _prob(target: np.ndarray, k: int, skill: float, rng: Any) -> np.ndarray:
    if skill == 0:
        return np.full((len(target), k), 1 / k)
    logit = rng.normal(size=(len(target), k))
    logit[np.arange(len(target)), target] += skill
    return np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)


def _write_embeddings(
    folder: Path, cohort: pd.DataFrame, index: np.ndarray, test: Any, skill: float, rng: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = rng.normal(size=(len(cohort), 16)) + skill * 2 * np.eye(16)[index]
    np.save(folder / "embeddings.npy", values.astype(np.float16))
    role = np.where(test, "test", "train")
    rows = pd.DataFrame({"row": range(len(cohort)), "scan": cohort.scan, "role": role})
    write_table(folder / "embeddings.parquet", "embeddings", rows)


def _write_encoder(folder: Path, method: str, rng: Any) -> None:
    steps = np.arange(0, 400, 10)
    decay = np.exp(-steps / 120)
    history = pd.DataFrame({
        "step": steps, "epoch": steps / 10, "loss": 2 + 3 * decay + rng.normal(0, 0.05, len(steps)), "lr": 1e-3,
        "grad_norm": 1.0, "embedding_std": 0.9 - 0.3 * decay, "effective_rank": 14 - 9 * decay, "images_per_s": 300.0,
        "memory_mb": 500.0, "alignment": 0.4, "uniformity": -2 + decay, "knn_balanced_accuracy": np.nan,
    })  # fmt: skip
    write_table(folder / "history.parquet", "history", history)
    grid = np.linspace(0, 6, 48)
    waves = [
        np.sin(grid[:, None] * f) * np.cos(grid[None] * (f + 1)) for f in rng.uniform(0.5, 2, 8)
    ]
    original = ((np.stack(waves)[:, None] + 1) * 127).astype(np.uint8)
    np.savez(folder / "views.npz", original=original,
             views=np.stack([original[..., ::-1], np.clip(original, 60, 190)], axis=1))  # fmt: skip
    n = len(original) if method in ("mae", "simmim") else 0
    masked = original[:n].copy()
    masked[:, :, ::2, ::2] = 128
    np.savez(
        folder / "reconstructions.npz",
        original=original[:n],
        masked=masked,
        reconstructed=original[:n] // 2 + 64,
    )

    facts = {"method": method, "settings": {"epochs": 40, "lr": 0.001}, "n_scans": 80, "device_seconds": 61.5,
             "device_name": "x86_64", "versions": {"torch": "2.13.0"}, "steps": 200, "flags": []}  # fmt: skip
    write_json(folder / "encoder.json", facts)


def _write_scores(files: Made, plan: dict, datasets: Sequence[str], classes: list[str]) -> None:
    """AUROC per arm and budget with normal intervals, differences, and verdicts by the rule of DESIGN.md section 4."""
    results, metric = files.root, files.metric
    scores, contrasts, table = [], [], []
    gain = plan["config"]["compare"]["smallest_gain"]
    for dataset in datasets:
        paths = [
            results / run["predictions"]
            for run in plan["runs"]
            if run["dataset"] == dataset and run["arms"]
        ]
        frame = pd.concat([pd.read_parquet(path) for path in paths])
        value = {key: _auroc(part, len(classes)) for key, part in frame.groupby(["arm", "budget"])}
        units = plan["config"]["score"]["units"]
        for arm, (b, budget), unit in product(plan["arms"], enumerate(plan["budgets"]), units):
            key, base = (arm["arm"], budget), (arm["baseline_arm"], budget)
            half = 0.09 - 0.02 * b
            row = {
                "dataset": dataset,
                "arm": arm["arm"],
                "budget": budget,
                "unit": unit,
                "metric": metric,
            }
            scores.append({**row, "value": value[key], "low": value[key] - half, "high": min(1, value[key] + half),
                           "sd_draws": 0.01, "sd_seeds": 0.0, "method": "bootstrap", "n_groups": 60,
                           "flags": "", "class": ""})  # fmt: skip
            line = {**row, "encoder": arm["encoder"], "recipe": arm["recipe"], "protocol": arm["protocol"],
                    "method": plan["encoders"][arm["encoder"]]["method"], "n_labelled_patients": [12, 13, 40][b],
                    "n_labelled_scans": [20, 22, 80][b], metric: value[key], f"{metric}_low": value[key] - half,
                    f"{metric}_high": min(1, value[key] + half), "baseline_arm": arm["baseline_arm"],
                    "flags": "no-inner-validation" if budget == "12" else "", "device_seconds": 4.5,
                    "best_by_validation": False}  # fmt: skip
            del line["metric"]
            if base in value:
                diff, low, high = (value[key] - value[base] + d for d in (0, -half, half))
                verdict = ("worse" if high < 0 else "gain" if low > 0 and high >= gain
                           else "no gain" if high < gain else "cannot tell")  # fmt: skip
                found = {
                    "diff": diff,
                    "low": low,
                    "high": high,
                    "se": half / 2,
                    "smallest_detectable": 1.4 * half,
                }
                contrasts.append({**row, **found, "baseline_arm": base[0], "verdict": verdict,
                                  "method": "", "flags": ""})  # fmt: skip
                line |= {f"{metric}_diff": diff, f"{metric}_diff_low": low, f"{metric}_diff_high": high,
                         "smallest_detectable": found["smallest_detectable"], "verdict": verdict}  # fmt: skip
            table.append(line)
    write_table(files.scores, "scores", pd.DataFrame(scores))
    columns = ["dataset", "arm", "baseline_arm", "budget", "unit", "metric", "diff", "low", "high", "se",
               "smallest_detectable", "verdict", "method", "flags"]  # fmt: skip
    write_table(files.contrasts, "contrasts", pd.DataFrame(contrasts, columns=columns))
    files.table.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(files.table, index=False)


def _auroc(frame: pd.DataFrame, k: int) -> float:
    values = []
    for _, part in frame.groupby(["fold", "seed", "draw"]):
        prob = np.stack(part.prob.to_numpy())
        positives = [1] if k == 2 else range(k)
        target = part.target.to_numpy()
        values.append(
            np.mean([_above(prob[target == c, c], prob[target != c, c]) for c in positives])
        )
    return float(np.mean(values))


def _above(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of pairs in which the positive has the higher score; ties count half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
