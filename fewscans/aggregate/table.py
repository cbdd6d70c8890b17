"""The ablation table: a row per data set, arm, budget and unit; and its long form, a row per metric of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fewscans.aggregate.build import Built
from fewscans.files import canonical_json
from fewscans.metrics import METRICS

ROW = ["dataset", "arm", "budget", "unit"]
# Settings that stand in a column of their own; the others that vary are in `settings`.
MAIN = {"recipe": ("size", "normalise"), "encoder": ("epochs", "batch_size", "strength")}
DIGITS = 6
NOT_NAMED = {"method", "backbone", *MAIN["recipe"], *MAIN["encoder"]}


def wide_table(
    plan: Mapping[str, Any],
    built: Built,
    scores: pd.DataFrame,
    contrasts: pd.DataFrame,
    metric: str,
) -> pd.DataFrame:
    """Rows of ``ablation_table.csv``, in the plan's order.

    Parameters
    ----------
    plan
        For names and settings of arms.
    built
        Facts of each row.
    scores, contrasts
        As in their files.
    metric
        Metric of `verdict` and `smallest_detectable`.
    """
    facts = pd.DataFrame(built.facts)
    numbers = _spread(scores[scores["class"] == ""], {"value": "", "low": "_low", "high": "_high"})
    differences = _spread(contrasts, {"diff": "_diff", "low": "_diff_low", "high": "_diff_high"})
    chosen = contrasts[contrasts["metric"] == metric]
    chosen = chosen[[*ROW, "baseline_arm", "smallest_detectable", "verdict"]]
    table = facts.merge(arm_table(plan), on="arm", how="left")
    # Where the config says nothing, they follow from the data.
    found = table["epochs"].astype("Float64").fillna(table["trained_epochs"].astype("Float64"))
    table["epochs"] = found.round()
    for part in (numbers, differences, chosen):
        table = table.merge(part, on=ROW, how="left")
    columns = [
        "dataset", "arm", "encoder", "method", "backbone", "recipe", "protocol", "ablation", *MAIN["recipe"],
        *MAIN["encoder"], "settings", "budget", "unit", "n_folds", "n_seeds", "n_draws", "n_groups", "n_patients",
        "n_scans", "n_labelled_patients", "n_labelled_scans",
        *(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")),
        "baseline_arm", *(f"{name}_diff{end}" for name in METRICS for end in ("", "_low", "_high")),
        "smallest_detectable", "verdict", "best_by_validation", "validation_score", "silhouette", "davies_bouldin",
        "flags", "device_seconds", "digest_config", "digest_data", "digest_splits", "digest_code",
    ]  # fmt: skip
    for column in columns:
        if column not in table:
            table[column] = None
    table = _in_order(table[columns], plan)
    for column in ("size", "epochs", "batch_size"):
        table[column] = table[column].astype("Int64")
    table["device_seconds"] = table["device_seconds"].round(1)
    return table.round(DIGITS)


def arm_table(plan: Mapping[str, Any]) -> pd.DataFrame:
    """Names and settings of each arm; `settings` holds as JSON what varies beyond the main ones."""
    used = {(arm["encoder"], arm["recipe"]) for arm in plan["arms"]}
    varying = _varying({name: plan["encoders"][name] for name, _ in used})
    recipes = {recipe: plan["recipes"][recipe] for _, recipe in used}
    recipe_keys = _differing(list(recipes.values()))
    rows = []
    for arm in plan["arms"]:
        encoder, recipe = plan["encoders"][arm["encoder"]], plan["recipes"][arm["recipe"]]
        settings = encoder["settings"]
        other = {
            key: settings[key] for key in varying[encoder["method"]] - NOT_NAMED if key in settings
        }
        other |= {key: recipe[key] for key in recipe_keys - NOT_NAMED if key in recipe}
        blind = encoder["method"] == "majority"
        rows.append({
            "arm": arm["arm"], "encoder": arm["encoder"], "method": encoder["method"], "backbone": encoder["backbone"],
            "recipe": arm["recipe"], "protocol": arm["protocol"], "ablation": arm.get("ablation"),
            **{key: None if blind else recipe.get(key) for key in MAIN["recipe"]},
            **{key: settings.get(key) for key in MAIN["encoder"]},
            "settings": canonical_json({} if blind else other),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _varying(encoders: Mapping[str, Any]) -> dict[str, set[str]]:
    """Method -> settings that differ among its encoders."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for encoder in encoders.values():
        by_method.setdefault(encoder["method"], []).append(encoder["settings"])
    return {method: _differing(settings) for method, settings in by_method.items()}


def _differing(settings: list[Any]) -> set[str]:
    keys = {key for one in settings for key in one}
    return {key for key in keys if len({canonical_json(one.get(key)) for one in settings}) > 1}


def _spread(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """A row per `ROW`, columns METRIC + ending for each value of `names`."""
    parts = []
    for column, ending in names.items():
        part = rows.pivot(index=ROW, columns="metric", values=column)
        parts.append(part.rename(columns=lambda name, end=ending: f"{name}{end}"))
    return pd.concat(parts, axis=1).reset_index()


def _in_order(table: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Rows by data set, arm and budget as the plan has them, then unit as scored."""
    ranks = {
        "dataset": list(plan["datasets"]), "arm": [arm["arm"] for arm in plan["arms"]],
        "budget": [*plan["budgets"], *sorted(set(table["budget"]) - set(plan["budgets"]))],
        "unit": list(dict.fromkeys(table["unit"])),
    }  # fmt: skip
    keys = pd.DataFrame(
        {
            name: table[name].map({v: i for i, v in enumerate(order)})
            for name, order in ranks.items()
        }
    )
    return table.loc[keys.sort_values(ROW, kind="stable").index].reset_index(drop=True)


def tidy_table(table: pd.DataFrame, scores: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `table` in long form: one per metric and class (`class` "" = all), the same numbers.

    `interval` says how the score's interval was made; differences and verdicts stand with the macro metrics.
    """
    metric_columns = [
        f"{m}{mid}{end}" for m in METRICS for mid in ("", "_diff") for end in ("", "_low", "_high")
    ]
    shared = table.drop(columns=[*metric_columns, "smallest_detectable", "verdict", "baseline_arm"])
    values = scores.drop(columns=["n_groups", "flags"]).rename(columns={"method": "interval"})
    found = contrasts.drop(columns=["flags", "method"]).rename(
        columns={"low": "diff_low", "high": "diff_high"}
    )
    long = shared.merge(values, on=ROW, how="left")
    return long.merge(found.assign(**{"class": ""}), on=[*ROW, "metric", "class"], how="left")
