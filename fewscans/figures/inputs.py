"""What figures and report are made from: the plan, and lazily what it names. Reads only; no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fewscans.config import CompareSettings
from fewscans.contracts import read_metadata, read_table
from fewscans.errors import UserError
from fewscans.figures.names import Names, budget_order
from fewscans.plan import TITLES

ARRAYS = {
    "views": ("original", "views"),
    "reconstructions": ("original", "masked", "reconstructed"),
}


@dataclass(frozen=True)
class Results:
    """Scores, contrasts and table, with the plan that says where everything else lies.

    Paths in the plan are relative to `root`, the working directory of the run.
    """

    plan: dict[str, Any]
    scores: pd.DataFrame
    contrasts: pd.DataFrame
    table: pd.DataFrame
    compare: CompareSettings
    root: Path

    @cached_property
    def names(self) -> Names:
        """Readable names."""
        return Names(self.plan)

    @cached_property
    def arms(self) -> dict[str, dict[str, Any]]:
        """Arm -> its entry in the plan, in the plan's order."""
        return {arm["arm"]: arm for arm in self.plan["arms"]}

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets with results."""
        return list(self.plan["datasets"])

    @property
    def unit(self) -> str:
        """What figures count: the first of the units scored, patients by default."""
        units = self.plan.get("config", {}).get("score", {}).get("units") or ["patient"]
        return units[0]

    @property
    def metric(self) -> str:
        """Metric of verdicts and figures."""
        return self.compare.metric

    @property
    def baseline_title(self) -> str:
        """What arms are compared with, without network and recipe: these match the arm's own."""
        return TITLES.get(self.compare.baseline, self.compare.baseline)

    @property
    def confidence(self) -> float:
        """Level of the intervals."""
        return float(self.plan.get("config", {}).get("score", {}).get("confidence", 0.95))

    def path(self, relative: str, *parts: str) -> Path:
        """A path of the plan."""
        return self.root / relative / Path(*parts)

    def score(self, dataset: str) -> pd.DataFrame:
        """Scores of the chosen metric and unit, a row per arm and budget."""
        s = self.scores
        return s[(s.dataset == dataset) & (s.metric == self.metric) & (s.unit == self.unit)]

    def contrast(self, dataset: str) -> pd.DataFrame:
        """Contrasts of the chosen metric and unit, a row per arm and budget."""
        c = self.contrasts
        return c[(c.dataset == dataset) & (c.metric == self.metric) & (c.unit == self.unit)]

    def rows(self, dataset: str) -> pd.DataFrame:
        """The table's rows of a data set, in the figures' unit."""
        t = self.table[self.table.dataset == dataset]
        return t[t.unit == self.unit] if "unit" in t.columns else t

    def n_labelled(self, dataset: str, budget: str) -> float:
        """Labelled patients of a budget, mean over folds and draws; NaN where the table does not say."""
        return self._n_labelled.get((dataset, budget), float("nan"))

    @cached_property
    def _n_labelled(self) -> dict[tuple[str, str], float]:
        if "n_labelled_patients" not in self.table.columns:
            return {}
        means = self.table.groupby(["dataset", "budget"]).n_labelled_patients.mean()
        return {key: float(value) for key, value in means.items()}

    def budgets(self, dataset: str) -> list[str]:
        """Budgets that have scores, smallest first."""
        found = list(dict.fromkeys(self.score(dataset).budget))

        def order(name: str) -> tuple[float, tuple[int, float]]:
            n = self.n_labelled(dataset, name)
            return (n if n == n else 0.0), budget_order(name)

        known = all(
            self.n_labelled(dataset, name) == self.n_labelled(dataset, name) for name in found
        )
        return sorted(found, key=order if known else budget_order)

    def runs(self, dataset: str) -> Iterator[dict[str, Any]]:
        """Fine-tuning runs of a data set, in the plan's order."""
        return (run for run in self.plan["runs"] if run["dataset"] == dataset)

    def scored_arms(self, dataset: str) -> list[str]:
        """Arms with scores, self-supervised ones first, the baseline last."""
        found = set(self.score(dataset).arm)
        return sorted((arm for arm in self.arms if arm in found), key=self._rank)

    def _rank(self, arm: str) -> int:
        entry = self.arms[arm]
        encoder = self.plan["encoders"][entry["encoder"]]
        if encoder.get("source") == "pretrain":
            return 0
        place = {"imagenet": 1, "random": 3, "majority": 4}.get(encoder["method"], 2)
        return place + (5 if entry["is_baseline"] else 0)

    def is_pretrained(self, arm: str) -> bool:
        """Whether an arm's encoder was pretrained here, without labels."""
        return self.plan["encoders"][self.arms[arm]["encoder"]].get("source") == "pretrain"

    # -- files that the plan names ---------------------------------------------------------------------------------
    def classes(self, dataset: str) -> list[str]:
        """Class names in order, from the first predictions."""
        for run in self.runs(dataset):
            path = self.path(run["predictions"])
            if path.is_file():
                return [str(name) for name in read_metadata(path).get("classes", [])]
        return []

    def predictions(self, dataset: str, arms: set[str], budget: str) -> pd.DataFrame:
        """Out-of-fold test predictions of `arms` at `budget`, a row per scan and training."""
        columns = ["arm", "fold", "seed", "draw", "scan", "patient", "group", "target", "prob"]
        filters = [("role", "==", "test"), ("budget", "==", budget), ("condition", "==", "clean")]
        parts = []
        for run in self.runs(dataset):
            path = self.path(run["predictions"])
            if arms.isdisjoint(run["arms"]) or not path.is_file():
                continue
            part = pq.read_table(path, columns=columns, filters=filters).to_pandas()
            parts.append(part[part.arm.isin(arms)])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def encoder_folders(self, dataset: str) -> list[tuple[str, str, str, int, Path]]:
        """(encoder, recipe, fold, seed, folder) of each pretrained encoder, a shared one once."""
        seen: dict[str, tuple[str, str, str, int, Path]] = {}
        for run in self.runs(dataset):
            folder = run.get("encoder_folder")
            if (
                folder
                and self.plan["encoders"][run["encoder"]].get("source") == "pretrain"
                and folder not in seen
            ):
                seen[folder] = (
                    run["encoder"],
                    run["recipe"],
                    run["fold"],
                    run["seed"],
                    self.path(folder),
                )
        return list(seen.values())

    def history(self, folder: Path) -> pd.DataFrame | None:
        """Pretraining's loss and gauges by step."""
        path = folder / "history.parquet"
        return read_table(path, "history") if path.is_file() else None

    def pictures(self, folder: Path, kind: str) -> list[np.ndarray] | None:
        """Arrays [n, C, H, W] uint8: original and two views, or original, masked, reconstructed; None without any."""
        path = folder / f"{kind}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            if any(name not in stored for name in ARRAYS[kind]) or not len(stored["original"]):
                return None
            arrays = [np.asarray(stored[name]) for name in ARRAYS[kind]]
        if kind == "views":  # [n, V, C, H, W]
            arrays = [arrays[0], *np.moveaxis(arrays[1], 1, 0)[:2]]
        return arrays

    def embedding(self, run: dict[str, Any]) -> tuple[np.ndarray, pd.DataFrame] | None:
        """Out-of-fold test embeddings [n, E] float32 of a run, and their rows (scan, target, patient, group)."""
        if not run.get("embeddings"):
            return None
        folder = self.path(run["embeddings"])
        if not (folder / "embeddings.npy").is_file():
            return None
        rows = read_table(folder / "embeddings.parquet", "embeddings")
        rows = rows[rows.role == "test"].merge(self.labels(run["dataset"]), on="scan", how="left")
        values = np.load(folder / "embeddings.npy", allow_pickle=False)[rows.row.to_numpy()]
        return values.astype(np.float32), rows

    def labels(self, dataset: str) -> pd.DataFrame:
        """Scans with patient, group, target ("" = no label) and status."""
        labels = read_table(self.path(self.plan["datasets"][dataset]["labels"]), "labels")
        return labels[["scan", "patient", "group", "target", "status"]]

    def audit(self, dataset: str, name: str) -> pd.DataFrame | None:
        """``duplicates``, ``groups`` or ``findings`` of the audit; None where there is none."""
        path = self.path(self.plan["datasets"][dataset]["audit"], f"{name}.parquet")
        return read_table(path, name) if path.is_file() else None


def read_results(
    plan: str | os.PathLike[str],
    scores: str | os.PathLike[str],
    contrasts: str | os.PathLike[str],
    table: str | os.PathLike[str],
    compare: CompareSettings,
    root: str | os.PathLike[str] = ".",
) -> Results:
    """Read what all figures share. A missing file is a `UserError` that says what makes it."""
    missing = [(str(path), "no such file. Run the workflow, or `scripts/aggregate.py`, first.")
               for path in (plan, scores, contrasts, table) if not Path(path).is_file()]  # fmt: skip
    if missing:
        raise UserError("report", missing)
    texts = dict.fromkeys(
        ("dataset", "arm", "encoder", "recipe", "protocol", "budget", "unit", "baseline_arm"), str
    )
    # A class or data set may be called "NA": only an empty field is missing.
    known = read_table(scores, "scores")
    frame = pd.read_csv(table, dtype=texts, keep_default_na=False, na_values=[""])
    return Results(
        plan=json.loads(Path(plan).read_text(encoding="utf-8")),
        # Figures and tables show means over classes; those of one class stand in the file.
        scores=known[known["class"].fillna("") == ""] if "class" in known.columns else known,
        contrasts=read_table(contrasts, "contrasts"),
        table=frame,
        compare=compare,
        root=Path(root),
    )
