"""All scores, contrasts and facts of a plan, block by block."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from fewscans.aggregate.contrast import contrast_rows
from fewscans.aggregate.inputs import Dataset, read_datasets
from fewscans.aggregate.scoring import Scored, score, score_rows
from fewscans.aggregate.units import Block, make_blocks
from fewscans.aggregate.validation import best_arms, validation_scores
from fewscans.clusters import INDICES, fold_indices
from fewscans.config import ENCODERS
from fewscans.config.stages import AggregateParams

log = logging.getLogger("fewscans")


@dataclass
class Built:
    """What the tables are made of; a row each."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    contrasts: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    """Data set x arm x budget x unit: counts, flags, seconds, indices, digests."""


def build(
    plan: Mapping[str, Any], params: AggregateParams, root: str | os.PathLike[str] = "."
) -> Built:
    """Score everything that `plan` names; files lie below `root`.

    Raises
    ------
    UserError
        Files are missing or do not fit together.
    """
    built = Built()
    for data in read_datasets(plan, root):
        began = time.perf_counter()
        indices = _cluster_indices(plan, data, Path(root))
        # Reading has checked what scikit-learn would check again at each of thousands of calls.
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            for block in make_blocks(
                data, list(params.score.units), params.score.resamples, params.seed
            ):
                _build_block(plan, params, data, block, indices, built)
        runs = len(data.runs)
        log.info("%s: %d runs scored in %.1f s", data.name, runs, time.perf_counter() - began)
    return built


def budgets_of(plan: Mapping[str, Any], data: Dataset) -> list[str]:
    """Budgets with results, in the plan's order; one that others were merged into (`all`) comes last."""
    found = set(data.runs["budget"])
    return [*(b for b in plan["budgets"] if b in found), *sorted(found - set(plan["budgets"]))]


def _build_block(
    plan: Mapping[str, Any],
    params: AggregateParams,
    data: Dataset,
    block: Block,
    indices: dict[tuple[str, str], dict[str, float | None]],
    built: Built,
) -> None:
    arms = [arm["arm"] for arm in plan["arms"]]
    baselines = {arm["arm"]: arm["baseline_arm"] for arm in plan["arms"]}
    compare, confidence = params.compare, params.score.confidence
    validation = validation_scores(data, compare.metric, block.unit)
    best = best_arms(validation, arms)
    for budget in budgets_of(plan, data):
        scored: dict[str, Scored] = {}
        for arm in arms:
            trainings = block.trainings(arm, budget)
            if trainings is not None:
                scored[arm] = score(block, trainings)
        place = {"dataset": block.dataset, "budget": budget, "unit": block.unit}
        for arm, found in scored.items():
            built.scores += [
                {**place, "arm": arm, **row} for row in score_rows(block, found, confidence)
            ]
        contrasts = contrast_rows(
            scored, baselines, budget, smallest_gain=compare.smallest_gain, confidence=confidence,
            key=(params.seed, block.dataset, block.unit),
            transductive={arm["arm"] for arm in plan["arms"] if arm.get("transductive")},
        )  # fmt: skip
        built.contrasts += [{**place, **row} for row in contrasts]
        told = {
            row["arm"]: row["flags"].split() for row in contrasts if row["metric"] == compare.metric
        }
        for arm, found in scored.items():
            row = _facts(plan, data, block, arm, budget, found)
            row["flags"] |= set(told.get(arm, []))
            row["best_by_validation"] = (arm, budget) in best
            row["validation_score"] = validation.get((arm, budget))
            row |= indices.get((arm, budget), dict.fromkeys(INDICES))
            if (arm, budget) not in validation and any(key[1] == budget for key in validation):
                row["flags"].add("no-validation-score")
            built.facts.append({**row, "flags": " ".join(sorted(row["flags"]))})


def _facts(
    plan: Mapping[str, Any], data: Dataset, block: Block, arm: str, budget: str, scored: Scored
) -> dict[str, Any]:
    """Counts, flags, seconds and digests of a row."""
    entry = next(one for one in plan["arms"] if one["arm"] == arm)
    runs = data.runs[(data.runs["arm"] == arm) & (data.runs["budget"] == budget)]
    flags = (
        {flag for stated in runs["flags"] for flag in stated}
        | scored.flags
        | block.flags
        | data.flags
    )
    if entry.get("transductive"):
        flags.add("transductive")
    columns = plan.get("config", {}).get("datasets", {}).get(data.name, {}).get("columns", {})
    if columns and columns.get("patient") is None:
        flags.add("no-patient-ids")
    digests = plan.get("digests", {})
    return {
        "dataset": block.dataset, "arm": arm, "budget": budget, "unit": block.unit,
        "n_folds": len(scored.trainings.folds), "n_seeds": len(scored.trainings.seeds),
        "n_draws": len(scored.trainings.draws), "n_groups": block.n_groups, "n_patients": block.n_patients,
        "n_scans": block.n_scans, "n_labelled_patients": float(runs["n_labelled_patients"].mean()),
        "n_labelled_scans": float(runs["n_labelled_scans"].mean()), "flags": flags,
        "device_seconds": float(runs["device_seconds"].sum()) + _encoder_seconds(plan, data, entry),
        "trained_epochs": _epochs(data, entry),
        "digest_config": digests.get("config", ""), "digest_data": data.digests["data"],
        "digest_splits": data.digests["splits"], "digest_code": digests.get("code", ""),
    }  # fmt: skip


def _epochs(data: Dataset, entry: Mapping[str, Any]) -> float | None:
    """Of its encoders' pretraining, the mean over folds and seeds; None where there was none."""
    made = [
        facts["epochs"]
        for key, facts in data.encoders.items()
        if key[:2] == (entry["encoder"], entry["recipe"]) and facts.get("epochs")
    ]
    return sum(made) / len(made) if made else None


def _encoder_seconds(plan: Mapping[str, Any], data: Dataset, entry: Mapping[str, Any]) -> float:
    """Share of a row in the seconds of its encoders: equal parts for each protocol and budget that uses them."""
    seconds: dict[str, float] = {}
    users = 0
    wanted = (data.name, entry["encoder"], entry["recipe"])
    for run in plan["runs"]:
        if (run["dataset"], run["encoder"], run["recipe"]) != wanted:
            continue
        facts = data.encoders.get((run["encoder"], run["recipe"], run["fold"], run["seed"]), {})
        place = f"{run['fold']}/{run['seed']}"
        # A transductive encoder serves all folds but was made once.
        seconds[run.get("encoder_folder") or place] = float(facts.get("device_seconds") or 0.0)
        seconds[f"{place} embedding"] = float(facts.get("embedding_seconds") or 0.0)
        users = len(run["arms"])
    budgets = data.runs["budget"].nunique()
    return sum(seconds.values()) / max(1, users * budgets)


def _cluster_indices(
    plan: Mapping[str, Any], data: Dataset, root: Path
) -> dict[tuple[str, str], dict[str, float | None]]:
    """(arm, budget) -> clustering indices, means over folds and seeds.

    A frozen encoder's embeddings are those of its probes, at every budget, and not of its fine-tuned arm. Scratch has
    no embedding before labels: its own are of the network fine-tuned on the largest budget, so they stand there.
    """
    targets: dict[str, dict[str, int]] = {}
    test = data.rows[data.rows["role"] == "test"][["fold", "scan", "target"]].drop_duplicates()
    for fold, part in test.groupby("fold", observed=True):
        targets[str(fold)] = dict(
            zip(part["scan"].astype(str), part["target"].astype(int), strict=True)
        )
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for run in plan["runs"]:
        if run["dataset"] == data.name and run["arms"] and run.get("embeddings"):
            values = fold_indices(root / run["embeddings"], targets.get(run["fold"], {}))
            found.setdefault((run["encoder"], run["recipe"]), []).append(values)
    sizes = data.runs.groupby("budget")["n_labelled_scans"].mean().to_dict()
    largest = max(sizes, key=lambda name: (name == "all", sizes[name]))
    placed: dict[tuple[str, str], dict[str, float | None]] = {}
    for arm in plan["arms"]:
        parts = found.get((arm["encoder"], arm["recipe"]))
        if not parts:
            continue
        mean = {name: _mean([one[name] for one in parts]) for name in INDICES}
        frozen = ENCODERS[plan["encoders"][arm["encoder"]]["method"]].protocols != ("finetune",)
        if frozen and arm["protocol"] != "finetune":
            placed.update({(arm["arm"], budget): mean for budget in sizes})
        elif not frozen:
            placed[arm["arm"], largest] = mean
    return placed


def _mean(values: list[float]) -> float | None:
    """Mean of the numbers among `values`."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def as_frames(built: Built) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and contrasts as tables, numbers rounded so that the same results are the same bytes."""
    order = ["dataset", "arm", "budget", "unit", "metric"]
    scores = pd.DataFrame(built.scores)
    contrasts = pd.DataFrame(
        built.contrasts,
        columns=["dataset", "arm", "baseline_arm", "budget", "unit", "metric", "diff", "low", "high", "se",
                 "smallest_detectable", "verdict", "method", "flags"],
    )  # fmt: skip
    scores = scores[[*order, *(c for c in scores.columns if c not in order)]]
    return scores.round(6), contrasts.round(6)
