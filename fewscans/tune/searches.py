"""Which searches a config asks for, and where each lies. Light: rules read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fewscans.config.augment import of_modality
from fewscans.config.stages import TuneParams
from fewscans.config.tune import TunedArm
from fewscans.plan import Plan

BEST, TRIALS = "best.json", "trials.parquet"


@dataclass(frozen=True)
class Search:
    """One encoder on one recipe, data set and outer fold."""

    encoder: str
    recipe: str
    dataset: str
    fold: str
    arm: TunedArm

    @property
    def key(self) -> str:
        """Folder below ``work/tune``."""
        return f"{self.encoder}/{self.recipe}/{self.dataset}/{self.fold}"


def arm_of(plan: Plan, encoder: str) -> TunedArm | None:
    """What is searched for an encoder of the plan; None where nothing is.

    A line of `tune.arms` names an encoder of the config, or a baseline and so each of its networks. Variants that
    an ablation makes are trained as they are.
    """
    tune = plan.config.tune
    if tune is None:
        return None
    if encoder in plan.config.encoders:
        return tune.arms.get(encoder)
    found = plan.encoders[encoder]
    return None if found.ablation is not None else tune.arms.get(found.method)


def searches(plan: Plan) -> Iterator[Search]:
    """Every search, in the order of the table."""
    tune = plan.config.tune
    if tune is None:
        return
    for dataset in plan.evaluated:
        folds = [f for f in plan.folds(dataset) if tune.folds is None or f in tune.folds]
        for encoder, recipe in plan.pairs:
            arm = arm_of(plan, encoder)
            for fold in folds if arm is not None else []:
                yield Search(encoder, recipe, dataset, fold, arm)  # type: ignore[arg-type]


def tune_params(plan: Plan, encoder: str, recipe: str, dataset: str) -> TuneParams:
    """Settings that the searches of all folds share; `fold` is left open."""
    config, tune, arm = plan.config, plan.config.tune, arm_of(plan, encoder)
    if tune is None or arm is None:
        raise ValueError(f"{encoder} is not tuned")
    modality = config.datasets[dataset].modality
    judged = of_modality(getattr(config.protocol_settings, arm.protocol), modality)
    used: dict[str, Any] = {arm.protocol: judged}
    return TuneParams(
        encoder=encoder,
        settings=of_modality(plan.encoders[encoder].settings, modality),  # type: ignore[arg-type]
        arm=arm,
        protocol_settings=type(config.protocol_settings)(**used),
        trials=tune.trials,
        parallel=tune.parallel,
        max_steps=tune.max_steps,
        prune=tune.prune,
        budget=tune.budget,
        recipe=plan.recipes[recipe],
        recipe_name=recipe,
        dataset=dataset,
        classes=config.datasets[dataset].classes or [],
        fold="",
        base_seed=config.seed,
        compute=config.compute,
    )
