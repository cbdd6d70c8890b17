"""Does each method learn anything? Its arms against an untrained frozen network, against scratch and the majority.

The same scores, intervals and rules as in the ablation table, with another question: a method that does not beat an
untrained network of its own kind has learnt nothing that these labels can show.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fewscans.aggregate.build import Built, build
from fewscans.config.stages import AggregateParams
from fewscans.contracts import read_table

# What arms of a protocol are held against: (name, method of that encoder, protocol).
AGAINST = (("random", "random", "linear"), ("scratch", "scratch", "finetune"))
# Of an arm's difference: the value, its interval by itself, the one that holds for all arms together.
DIFFERENCE = ["diff", "low_alone", "high_alone", "low", "high"]
GAUGES = (
    "embedding_std", "effective_rank", "alignment", "uniformity", "knn_balanced_accuracy",
)  # fmt: skip


def learns(
    plan: Mapping[str, Any], params: AggregateParams, root: str | os.PathLike[str] = "."
) -> dict[str, Any]:
    """Everything that the page says of the data sets of `plan`, as JSON.

    Raises
    ------
    UserError
        Files are missing or do not fit together.
    """
    contrasts: dict[str, pd.DataFrame] = {}
    for name, method, protocol in AGAINST:
        built = build({**plan, "arms": _against(plan, method, protocol)}, params, root)
        contrasts[name] = pd.DataFrame(built.contrasts)
    return {
        "metric": params.compare.metric,
        "confidence": params.score.confidence,
        "validation": plan["config"]["validation"],
        "datasets": {
            dataset: _dataset(plan, params, built, contrasts, dataset, Path(root))
            for dataset in plan["datasets"]
        },
    }


def _against(plan: Mapping[str, Any], method: str, protocol: str) -> list[dict[str, Any]]:
    """Arms of the plan; those by `protocol` are compared with `method` on the same network and recipe.

    Fewer comparisons hold together in narrower intervals: frozen features are held against frozen ones, fine-tuned
    networks against fine-tuned ones.
    """
    encoders = plan["encoders"]
    found = {
        (_network(encoders[arm["encoder"]]), arm["recipe"]): arm["arm"]
        for arm in plan["arms"]
        if encoders[arm["encoder"]]["method"] == method and arm["protocol"] == protocol
    }
    made = []
    for arm in plan["arms"]:
        base = found.get((_network(encoders[arm["encoder"]]), arm["recipe"]))
        if arm["protocol"] != protocol:
            base = None
        made.append({**arm, "baseline_arm": None if base == arm["arm"] else base})
    return made


def _network(encoder: Mapping[str, Any]) -> tuple[str, int | None]:
    return encoder["backbone"], encoder["settings"].get("patch_size")


def _dataset(
    plan: Mapping[str, Any], params: AggregateParams, built: Built, contrasts: Mapping[str, pd.DataFrame],
    dataset: str, root: Path,
) -> dict[str, Any]:  # fmt: skip
    metric, unit = params.compare.metric, params.score.units[0]
    facts = pd.DataFrame(built.facts)
    facts = facts[(facts.dataset == dataset) & (facts.unit == unit)]
    scores = pd.DataFrame(built.scores)
    scores = scores[(scores.dataset == dataset) & (scores.unit == unit) & (scores.metric == metric)]
    # Of several classes there are scores of each, too.
    scores = scores[scores["class"].fillna("") == ""]
    first = facts.iloc[0]
    rows = []
    for row in scores.itertuples():
        arm = next(one for one in plan["arms"] if one["arm"] == row.arm)
        made = {
            "encoder": arm["encoder"], "method": plan["encoders"][arm["encoder"]]["method"],
            "backbone": plan["encoders"][arm["encoder"]]["backbone"], "protocol": arm["protocol"],
            "budget": row.budget, "value": row.value, "low": row.low, "high": row.high,
        }  # fmt: skip
        for name, table in contrasts.items():
            found = table[
                (table.dataset == dataset) & (table.unit == unit) & (table.metric == metric)
                & (table.arm == row.arm) & (table.budget == row.budget)
            ]  # fmt: skip
            if len(found):
                made[f"above_{name}"] = found.iloc[0][DIFFERENCE].tolist()
        rows.append(made)
    return {
        "unit": unit, "folds": len({run["fold"] for run in plan["runs"] if run["dataset"] == dataset}),
        "budgets": list(dict.fromkeys(scores.budget)), "rows": rows,
        "n_scans": int(first.n_scans), "n_patients": int(first.n_patients),
        "device_seconds": float(facts.device_seconds.sum()),
        "digests": {name: str(first[f"digest_{name}"]) for name in ("config", "data", "splits", "code")},
        "trainings": _trainings(plan, dataset, root),
    }  # fmt: skip


def _trainings(plan: Mapping[str, Any], dataset: str, root: Path) -> dict[str, dict[str, Any]]:
    """Encoder -> how its pretrainings went: means over folds and seeds."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for run in plan["runs"]:
        source = plan["encoders"][run["encoder"]]["source"]
        if run["dataset"] != dataset or source != "pretrain":
            continue
        folder = root / run["encoder_folder"]
        said = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        history = read_table(folder / "history.parquet", "history")
        last = history.iloc[-1]
        parts.setdefault(run["encoder"], []).append({
            "steps": said["steps"], "seconds": said["device_seconds"], "device": said["device_name"],
            "versions": said["versions"], "flags": said["flags"],
            "loss_first": float(history.loss.iloc[0]), "loss_last": float(last.loss),
            **{name: float(last[name]) for name in GAUGES if name in history.columns},
            **_first_look(history),
        })  # fmt: skip
    return {name: _mean(found) for name, found in parts.items()}


def _first_look(history: pd.DataFrame) -> dict[str, float]:
    """Gauges of the first look: against the last one they say what training changed."""
    looked = history.dropna(subset=["alignment"])
    names = ("alignment", "knn_balanced_accuracy")
    return {f"{name}_first": float(looked.iloc[0][name]) for name in names} if len(looked) else {}


def _mean(parts: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = pd.DataFrame(parts).drop(columns=["device", "versions", "flags"]).mean()
    return {
        # A gauge that was not taken is not said.
        **numbers.astype(float).dropna().to_dict(), "trainings": len(parts),
        "devices": sorted({part["device"] for part in parts}), "versions": parts[0]["versions"],
        "flags": sorted({flag for part in parts for flag in part["flags"]}),
    }  # fmt: skip
