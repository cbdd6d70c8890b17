"""Fine-tuning jobs that never ran, for scoring: labels, splits, predictions and embeddings that fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from fewscans.config import load
from fewscans.contracts import read_metadata, read_table, write_table
from fewscans.files import write_json
from fewscans.keyed import key_of
from fewscans.plan import Paths, as_json, expand
from fewscans.tables import read_csv
from scripts import aggregate

# How far an arm parts the classes, by method; `majority` gives everybody the same.
SKILL = {"majority": None, "random": 0.5, "scratch": 1.0, "simclr": 2.5, "mae": 1.0}


@dataclass
class Study:
    """What a test may change before `write`."""

    root: Path
    classes: list[str] = field(default_factory=lambda: ["benign", "malignant"])
    n_patients: int = 48
    scans_each: int = 2
    config: dict[str, Any] = field(default_factory=dict)
    skill: dict[str, float | None] = field(default_factory=lambda: dict(SKILL))
    luck: float = 0.0
    """Spread between trainings."""
    validation: bool = False
    twins: int = 0

    def __post_init__(self) -> None:
        raw = {
            "datasets": {"mine": {"root": "x", "table": "l.csv", "split": self.config.pop("split", "grouped")}},
            "recipes": {"s": {"size": 32}}, "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet"}},
            "budgets": ["10", "all"], "validation": {"folds": 3, "seeds": 1, "draws": 2}, **self.config,
        }  # fmt: skip
        self.plan = as_json(
            expand(load(raw)), Paths("work", "results"), {"config": "c0", "code": "d0"}
        )
        self.budgets = self.plan["budgets"]
        k = len(self.classes)
        rows = [
            {"scan": f"{key_of('scan', p, i):016x}", "path": f"{p}-{i}.png", "patient": f"p{p:03d}",
             "group": f"g{p:03d}", "target": self.classes[p % k], "split": "", "site": "", "status": "ok", "reason": "",
             "twin": p < self.twins, "fold": (p // k) % len(self.folds)}
            for p in range(self.n_patients)
            for i in range(1 + p % self.scans_each)
        ]  # fmt: skip
        self.cohort = pd.DataFrame(rows)

    @property
    def folds(self) -> list[str]:
        return self.plan["datasets"]["mine"]["folds"]

    def write(self) -> None:
        """Everything that `scripts/aggregate.py` reads, below `root`."""
        entry = self.plan["datasets"]["mine"]
        write_table(self.root / entry["labels"], "labels", self.cohort.drop(columns="fold"))
        self._write_splits(entry)
        for run in self.plan["runs"]:
            if run["arms"]:
                self._write_run(run)
        write_json(self.root / "work/plan.json", self.plan)

    def _tested(self, fold: str) -> np.ndarray:
        # an official split tests every other patient
        if fold == "official":
            return (
                self.cohort["patient"].str[1:].astype(int) // len(self.classes) % 2 == 0
            ).to_numpy()
        return (self.cohort["fold"] == int(fold)).to_numpy()

    def _labelled(self, fold: str, budget: str, draw: int) -> pd.DataFrame:
        train = self.cohort[~self._tested(fold)]
        patients = list(dict.fromkeys(train["patient"]))
        if budget != "all":
            patients = patients[draw : draw + int(budget)]
        part = train[train["patient"].isin(patients)]
        return part.assign(
            inner=part["patient"].map({p: i // 2 % 3 for i, p in enumerate(patients)})
        )

    def _draws(self, budget: str) -> range:
        return range(1 if budget == "all" else self.plan["config"]["validation"]["draws"])

    def _write_splits(self, entry: dict[str, Any]) -> None:
        folds, budgets = [], []
        for fold in self.folds:
            role = np.where(self._tested(fold), "test", "train")
            folds.append(self.cohort[["scan", "group"]].assign(fold=fold, role=role))
            for budget in self.budgets:
                for draw in self._draws(budget):
                    part = self._labelled(fold, budget, draw)[["scan", "inner"]]
                    budgets.append(part.assign(fold=fold, budget=budget, draw=draw))
        write_table(self.root / entry["folds_file"], "folds", pd.concat(folds))
        write_table(self.root / entry["budgets_file"], "budgets", pd.concat(budgets))

    def _write_run(self, run: dict[str, Any]) -> None:
        method = self.plan["encoders"][run["encoder"]]["method"]
        protocols = {arm["arm"]: arm["protocol"] for arm in self.plan["arms"]}
        rows, runs = [], []
        test = self.cohort[self._tested(run["fold"])]
        for arm, budget in product(run["arms"], self.budgets):
            for draw in self._draws(budget):
                key = (run["encoder"], protocols[arm], budget, draw, run["fold"], run["seed"])
                labelled = self._labelled(run["fold"], budget, draw)
                parts = [("test", test.assign(inner=-1))]
                if self.validation and protocols[arm] != "finetune":
                    parts.append(("val", labelled))
                for role, part in parts:
                    target = part["target"].map(self.classes.index).to_numpy()
                    rows.append(part[["scan", "patient", "group", "inner"]].assign(
                        dataset="mine", test_dataset="mine", condition="clean", arm=arm, fold=run["fold"],
                        seed=run["seed"], budget=budget, draw=draw, role=role, target=target,
                        prob=list(self.prob(method, target, role, *key)),
                    ))  # fmt: skip
                runs.append({
                    "arm": arm, "protocol": protocols[arm], "budget": budget, "draw": draw, "fold": run["fold"],
                    "seed": run["seed"], "n_labelled_patients": labelled["patient"].nunique(),
                    "n_labelled_scans": len(labelled), "choices": {}, "flags": [], "device_seconds": 2.0,
                    "digest": f"{key_of(*key):016x}",
                })  # fmt: skip
        facts = {"task": "classification", "classes": self.classes, "runs": runs}
        encoder = {
            "method": method,
            "device_seconds": 40.0 if run["encoder_folder"] else 0.0,
            "epochs": 103 + run["seed"] if run["encoder_folder"] else None,
            "embedding_seconds": 1.0,
        }
        write_table(
            self.root / run["predictions"], "predictions", pd.concat(rows), encoder=encoder, **facts
        )
        if run["embeddings"]:
            self._write_embeddings(run, test)

    def prob(self, method: str, target: np.ndarray, role: str, *key: Any) -> np.ndarray:
        """[n, K] of one training, from its key alone."""
        skill = self.skill[method]
        if skill is None:
            return np.tile(np.full(len(self.classes), 1 / len(self.classes)), (len(target), 1))
        rng = np.random.default_rng(key_of(role, *key) % 2**63)
        logit = rng.normal(size=(len(target), len(self.classes)))
        logit[np.arange(len(target)), target] += skill + self.luck * rng.normal()
        return softmax(logit, axis=1)

    def _write_embeddings(self, run: dict[str, Any], test: pd.DataFrame) -> None:
        folder = self.root / run["embeddings"]
        folder.mkdir(parents=True, exist_ok=True)
        target = test["target"].map(self.classes.index).to_numpy()
        rng = np.random.default_rng(key_of(run["encoder"], run["fold"], run["seed"]) % 2**63)
        np.save(
            folder / "embeddings.npy",
            (rng.normal(size=(len(test), 4)) + target[:, None]).astype(np.float16),
        )
        frame = pd.DataFrame(
            {"row": range(len(test)), "scan": test["scan"].to_numpy(), "role": "test"}
        )
        write_table(folder / "embeddings.parquet", "embeddings", frame)


def run_aggregate(**params: Any) -> int:
    """Exit code of ``scripts/aggregate.py`` in the folder of a study; few resamples if `params` do not say."""
    return aggregate.main([
        "--params", json.dumps({"score": {"resamples": 200}, **params}), "--plan", "work/plan.json",
        "--scores", "work/scores.parquet", "--contrasts", "work/contrasts.parquet",
        "--table", "results/ablation_table.csv", "--sidecar", "work/aggregate.json",
    ])  # fmt: skip


def ablation_table() -> pd.DataFrame:
    """The table that came out, by arm, budget and unit."""
    return read_csv("results/ablation_table.csv").set_index(["arm", "budget", "unit"], drop=False)


def rewrite(path: str | Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Apply `change` to the rows of a table of ours."""
    write_table(path, name, change(read_table(path, name)), **read_metadata(path))
