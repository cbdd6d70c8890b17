"""From a config to its plan: ablations as products of their axes, matched baselines, legal arms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from fewscans.config import ENCODERS, Config, EncoderSettings, RecipeSettings
from fewscans.config.backbones import flat_name
from fewscans.config.encoders import PretrainSettings
from fewscans.config.values import check_values
from fewscans.errors import Problems
from fewscans.plan.model import TITLES, Arm, Encoder, Plan, baseline_name, network

SHARED = ("backbone", "patch_size", *PretrainSettings.model_fields)


def expand(config: Config) -> Plan:
    """Everything that `config` asks for: named encoders, their ablations, and matched baselines."""
    plan = Plan(config, recipes=dict(config.recipes))
    main = list(config.recipes)
    for name, settings in config.encoders.items():
        plan.encoders[name] = Encoder(name, settings, _title(name, settings))
        if not getattr(settings, "stage", False):
            plan.pairs += [(name, recipe) for recipe in main]
    for name, ablation in config.ablations.items():
        _expand_ablation(plan, name, ablation)
    _add_baselines(plan)
    _add_starts(plan)
    _add_arms(plan)
    problems = Problems("config")  # those of encoders that ablations have made
    check_values({name: e.settings for name, e in plan.encoders.items()}, config, problems)
    problems.raise_if_any()
    return plan


def _title(name: str, settings: EncoderSettings) -> str:
    return TITLES[name] if name == settings.method else name


def _expand_ablation(plan: Plan, name: str, ablation: Any) -> None:
    config = plan.config
    base = config.encoders[ablation.of]
    recipe_name = ablation.recipe or next(iter(config.recipes))
    recipe = config.recipes[recipe_name]
    axes = ablation.axes
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        of_recipe = {k: v for k, v in chosen.items() if k in RecipeSettings.model_fields}
        of_encoder = {k: v for k, v in chosen.items() if k not in of_recipe}
        made_recipe = _place_recipe(plan, recipe_name, recipe, of_recipe)
        made = _place_encoder(plan, name, ablation.of, base, of_encoder)
        if (made, made_recipe) not in plan.pairs:
            plan.pairs.append((made, made_recipe))


def _place_recipe(plan: Plan, name: str, recipe: RecipeSettings, changes: Mapping[str, Any]) -> str:
    changed = RecipeSettings.model_validate({**recipe.model_dump(), **changes})
    for known, settings in plan.recipes.items():
        if settings == changed:
            return known
    made = "-".join([name, *(_word(axis, value) for axis, value in changes.items())])
    plan.recipes[made] = changed
    return made


def _place_encoder(
    plan: Plan, ablation: str, of: str, base: Any, changes: Mapping[str, Any]
) -> str:
    changes = dict(changes)
    method = changes.pop("method", None)
    values = base.model_dump()
    if method is not None and method != values["method"]:
        shared = {
            key: value
            for key, value in values.items()
            if key in SHARED and key in ENCODERS[method].model_fields
        }
        if ENCODERS[method].networks != base.networks:  # the one may not have the other's network
            shared.pop("backbone", None)
        values = {**shared, "method": method}
    changed = ENCODERS[values["method"]].model_validate({**values, **changes})
    for known, encoder in plan.encoders.items():
        if encoder.settings == changed:
            return known
    words = ([method] if method and method != base.method else []) + [
        _word(*change) for change in changes.items()
    ]
    made = "-".join([of, *words])
    plan.encoders[made] = Encoder(made, changed, made, ablation)
    return made


def _word(axis: str, value: Any) -> str:
    """``epochs50``, ``strength0.5``, ``backbone-vit-tiny``: fit for a file name."""
    text = str(value).lower().replace("_", "-")
    return f"{axis.replace('_', '-')}{'-' if isinstance(value, str) else ''}{text}"


def _add_baselines(plan: Plan) -> None:
    """Once per network and recipe in use, so that a contrast differs in the encoder alone."""
    used: dict[tuple[str, int | None, str], None] = {}
    for name, recipe in plan.pairs:
        used[(*network(plan.encoders[name].settings), recipe)] = None
    if not used:
        usual = "resnet18" if plan.config.ndim == 2 else "monai-resnet18"
        used = {(usual, None, recipe): None for recipe in plan.recipes}
    front: list[tuple[str, str]] = []
    for method in plan.config.baselines:
        if method == "majority":
            plan.encoders["majority"] = Encoder(
                "majority", ENCODERS[method].model_validate({}), TITLES[method]
            )
            front.append(("majority", next(iter(plan.recipes))))
            continue
        for backbone, patch, recipe in used:
            name = _place_baseline(plan, method, backbone, patch)
            if (name, recipe) not in front:
                front.append((name, recipe))
    plan.pairs = front + [pair for pair in plan.pairs if pair not in front]


def _place_baseline(plan: Plan, method: str, backbone: str, patch: int | None) -> str:
    name = baseline_name(method, backbone, patch)
    given = {"backbone": backbone, "patch_size": patch}
    if method == "imagenet":
        files = plan.config.imagenet_weights
        given["weights"] = files.get(backbone) or files.get(flat_name(backbone))
    settings = ENCODERS[method].model_validate(given)
    plan.encoders[name] = Encoder(name, settings, f"{TITLES[method]} {backbone}")
    return name


def _add_starts(plan: Plan) -> None:
    """Weights from outside that encoders start from, without arms of their own where they are no baseline."""
    problems = Problems("encoders")
    for name, encoder in list(plan.encoders.items()):
        if (start := plan.start_of(name)) is None:
            continue
        if start not in plan.encoders:
            _place_baseline(plan, "imagenet", *network(encoder.settings))
        parent = plan.encoders[start].settings
        if network(parent) != network(encoder.settings):  # the axis of an ablation
            problems.add(
                name, f"has another network than '{start}', where its weights start. Vary the start instead."
            )  # fmt: skip
    problems.raise_if_any()


def _add_arms(plan: Plan) -> None:
    baseline = plan.config.compare.baseline
    # What no protocol is legal for (scratch, where there are probes alone) has no job either.
    plan.pairs = [(name, recipe) for name, recipe in plan.pairs if plan.protocols(name)]
    for name, recipe in plan.pairs:
        encoder = plan.encoders[name]
        for protocol in plan.protocols(name):
            against = _baseline_arm(plan, baseline, encoder, recipe, protocol)
            arm = Arm(name, recipe, protocol, against, encoder.ablation)
            plan.arms[arm.name] = arm


def _baseline_arm(
    plan: Plan, baseline: str, encoder: Encoder, recipe: str, protocol: str
) -> str | None:
    """Arm of the baseline with the same network and recipe: the same protocol if legal there, else its only one."""
    if encoder.method in ("majority", baseline):
        return None
    for name, other in plan.pairs:
        found = plan.encoders[name]
        if found.method != baseline or (baseline != "majority" and other != recipe):
            continue
        if baseline != "majority" and network(found.settings) != network(encoder.settings):
            continue
        legal = plan.protocols(name)
        if legal:
            return f"{name}.{other}.{protocol if protocol in legal else legal[0]}"
    return None
