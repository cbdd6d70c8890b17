"""The plan as a file, ``results/plan.json``: what aggregate and report read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fewscans.plan.model import Paths, Plan, Run


def as_json(plan: Plan, paths: Paths, digests: Mapping[str, str]) -> dict[str, Any]:
    """The plan as ``results/plan.json``: what aggregate and report read. Says nothing of where the data lie."""
    config = plan.config
    places = {
        name: {"root", "table", "npz", "values"} | ({"exclude"} if dataset.is_private else set())
        for name, dataset in config.datasets.items()
    }
    left_out: Any = {"report": True, "data_root": True, "datasets": places, "tune": True}
    left_out["pseudonym_key"] = True
    said = config.model_dump(mode="json", exclude={**left_out, "imagenet_weights": True})
    said["encoders"] = {name: _without_places(given) for name, given in said["encoders"].items()}
    return {
        "config": said,
        "datasets": {name: _dataset_json(plan, paths, name) for name in plan.evaluated},
        "encoders": {
            name: {
                "method": e.method,
                "backbone": e.settings.backbone,
                "source": e.settings.source,
                "title": e.title,
                "settings": _without_places(e.settings.model_dump(mode="json")),
                "ablation": e.ablation,
            }
            for name, e in plan.encoders.items()
        },
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "arms": [
            {
                "arm": arm.name,
                "encoder": arm.encoder,
                "recipe": arm.recipe,
                "protocol": arm.protocol,
                "baseline_arm": arm.baseline,
                "ablation": arm.ablation,
                "is_baseline": plan.encoders[arm.encoder].method == config.compare.baseline,
                "transductive": bool(
                    getattr(plan.encoders[arm.encoder].settings, "transductive", False)
                ),
            }
            for arm in plan.arms.values()
        ],
        "budgets": list(config.budgets),
        "runs": [_run_json(plan, paths, run) for run in plan.runs()],
        "digests": dict(digests),
    }


def _without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with files of weights by their names alone."""
    paths = {
        key: PurePath(settings[key]).name
        for key in ("weights", "start")
        if "/" in str(settings.get(key))
    }
    return {**settings, **paths}


def _dataset_json(plan: Plan, paths: Paths, name: str) -> dict[str, Any]:
    settings = plan.config.datasets[name]
    return {
        "split": settings.split,
        "folds": plan.folds(name),
        "source": settings.source,
        "pools": settings.pools,
        "audit": paths.dataset(name, "audit"),
        "labels": paths.dataset(name, "labels.parquet"),
        "folds_file": paths.dataset(name, "folds.parquet"),
        "budgets_file": paths.dataset(name, "budgets.parquet"),
    }


def _run_json(plan: Plan, paths: Paths, run: Run) -> dict[str, Any]:
    key = plan.encoder_key(run)
    arms = [f"{run.encoder}.{run.recipe}.{protocol}" for protocol in plan.protocols(run.encoder)]
    return {
        "dataset": run.dataset,
        "encoder": run.encoder,
        "recipe": run.recipe,
        "fold": run.fold,
        "seed": run.seed,
        "predictions": paths.predictions(run),
        "arms": arms,
        "embeddings": None
        if plan.encoders[run.encoder].method == "majority"
        else paths.embeddings(run),
        "encoder_folder": None if key is None else paths.encoder(key),
    }
