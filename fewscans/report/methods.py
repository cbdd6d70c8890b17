"""How it was done: cohort, splits, recipes, encoders as they came out, versions, digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fewscans
from fewscans.figures import names
from fewscans.figures.inputs import Results
from fewscans.report.tables import seconds

PACKAGES = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "matplotlib", "seaborn")
# Shown elsewhere on the page, or of no effect on a result.
QUIET = {"method", "backbone", "checkpoint_minutes", "transductive"}


def cohort(results: Results, dataset: str) -> str:
    """``148 scans of 60 patients ... Scans by class: benign 80, malignant 68.``, in words."""
    path = results.path(results.plan["datasets"][dataset]["labels"])
    if not path.is_file():
        return ""
    labels = results.labels(dataset)
    labels = labels[labels.status == "ok"]
    target = labels.target.fillna("")
    named = results.classes(dataset) or sorted(set(target) - {""})
    classes = ", ".join(f"{name} {int((target == name).sum())}" for name in named)
    bare = int((target == "").sum())
    text = f"{len(labels)} scans of {labels.patient.nunique()} patients in {labels.group.nunique()} groups"
    return f"{text}. Scans by class: {classes}." + (f" Without a label: {bare}." if bare else "")


def methods(results: Results) -> dict[str, Any]:
    """Everything under the heading `How it was done`."""
    config = results.plan.get("config") or {}
    return {
        "facts": _facts(results, config),
        "recipes": [
            {"name": name, "settings": _settings(recipe, _unused(recipe))}
            for name, recipe in results.plan.get("recipes", {}).items()
        ],
        "encoders": _encoders(results),
        "versions": _versions(results),
        "digests": _digests(results),
    }


def _facts(results: Results, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    trainings = [
        names.count((config.get("validation") or {}).get(f"{one}s", 1), one)
        for one in ("seed", "draw")
    ]
    score = config.get("score") or {}
    found = []
    for name, entry in results.plan["datasets"].items():
        if entry["split"] == "official":
            text = "official split of the data set; one test set for all."
        else:
            text = f"{len(entry['folds'])} folds, stratified, by group: patients joined by duplicates stay together."
        pools = ", ".join(entry.get("pools") or [])
        text += f" Pretraining also saw scans of {pools} (no labels)." if pools else ""
        found.append((f"Split of {name}", text))
        found.append((f"Budgets of {name}", _budgets(results, name)))
        if entry.get("source"):
            found.append((f"Source of {name}", str(entry["source"])))
    found += [
        ("Trainings", f"{'; '.join(trainings)} of each budget smaller than all, nested, the same for every arm."),
        ("Pretraining", "Inside each training fold: test groups are never seen. The last epoch is kept."),
        ("Choices", "By inner folds of the labelled budget alone; documented defaults where it is too small."),
        ("Scores", "AUROC and average precision per fold, averaged; counting metrics pooled over folds. Draws and "
                   "seeds average the metric, never the probabilities."),
        ("Intervals", f"{100 * results.confidence:g} %; {score.get('resamples', '?')} resamples of groups within "
                      "fold and class. Those of differences hold patients and training (fold, draw, seed), and "
                      "are simultaneous over the arms of a budget."),
    ]  # fmt: skip
    return found


def _budgets(results: Results, dataset: str) -> str:
    rows, parts = results.rows(dataset), []
    for budget in results.budgets(dataset):
        part = rows[rows.budget == budget]
        text = names.labelled(budget, results.n_labelled(dataset, budget))
        if "n_labelled_scans" in part.columns and part.n_labelled_scans.notna().any():
            text += f", {part.n_labelled_scans.mean():.0f} scans"
        parts.append(text)
    return "; ".join(parts) + " (mean over folds and draws)."


def _encoders(results: Results) -> list[dict[str, str]]:
    """Pretrained encoders with settings as they came out (first fold), and what training them took."""
    folders: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for dataset in results.datasets:
        for encoder, recipe, *_, folder in results.encoder_folders(dataset):
            path = folder / "encoder.json"
            facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            folders.setdefault((encoder, recipe), []).append(facts)
    rows = []
    for (encoder, recipe), facts in folders.items():
        entry = results.plan["encoders"][encoder]
        settings = facts[0].get("settings") or entry.get("settings") or {}
        scans = [one["n_scans"] for one in facts if "n_scans" in one]
        took = [one["device_seconds"] for one in facts if "device_seconds" in one]
        rows.append(
            {
                "name": results.names.pair(encoder, recipe),
                "network": str(entry.get("backbone", "")),
                "recipe": recipe,
                "settings": _settings(settings, QUIET),
                "scans": f"{min(scans)} to {max(scans)}"
                if scans and min(scans) != max(scans)
                else str(*scans[:1]),
                "seconds": seconds(sum(took)) if took else "",
                "device": str(facts[0].get("device_name", "")),
            }
        )
    return rows


def _unused(recipe: Mapping[str, Any]) -> set[str]:
    """Settings of ways to normalise that this recipe does not use."""
    ways = {"window": "window_hu", "percentile": "percentiles"}
    unused = {setting for way, setting in ways.items() if recipe.get("normalise") != way}
    return unused | {"window_hu"} if recipe.get("windows") else unused


def _settings(settings: Mapping[str, Any], skip: set[str]) -> str:
    shown = {k: v for k, v in settings.items() if k not in skip and v is not None}
    between = {"windows": ", ", "spacing_mm": " x "}
    return ", ".join(
        f"{key.replace('_', ' ')} {_plain(value, between.get(key, ' to '))}"
        for key, value in shown.items()
    )


def _plain(value: Any, between: str = " to ") -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return between.join(_plain(one) for one in value) if isinstance(value, list) else str(value)


def _versions(results: Results) -> str:
    """Of what trained (as the encoders say) and of what scored and drew (as installed here)."""
    found = {"fewscans": fewscans.__version__}
    for dataset in results.datasets:
        for *_, folder in results.encoder_folders(dataset):
            if (folder / "encoder.json").is_file():
                found |= (
                    json.loads((folder / "encoder.json").read_text(encoding="utf-8")).get(
                        "versions"
                    )
                    or {}
                )
                break
    for package in PACKAGES:
        if package not in found:
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # vendored or from a system's own packages
                continue
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _digests(results: Results) -> list[tuple[str, str]]:
    found = {str(k): str(v) for k, v in (results.plan.get("digests") or {}).items()}
    for column in results.table.columns:
        if "digest" in column:
            for dataset in results.datasets:
                values = (
                    results.table.loc[results.table.dataset == dataset, column].dropna().unique()
                )
                if len(values) == 1 and str(values[0]) not in found.values():
                    found[f"{dataset}: {column.replace('_digest', '').replace('digest_', '')}"] = (
                        str(values[0])
                    )
    return list(found.items())
