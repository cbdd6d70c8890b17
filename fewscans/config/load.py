"""From what a user wrote to a checked `Config`: all problems at once, each with a way out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fewscans.config.backbones import SLICES, looks_like_vit, misfit
from fewscans.config.encoders import ENCODERS
from fewscans.config.explain import explain, not_a_method
from fewscans.config.models import AblationSettings, Config, DatasetSettings
from fewscans.config.starts import check_starts
from fewscans.config.tune import check_tune
from fewscans.config.values import check_values
from fewscans.errors import Problems, UserError, did_you_mean


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read a YAML config as a mapping (no objects are built from it)."""
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. Copy config/examples/template.yaml to begin."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: a config is a mapping of settings; this is a {type(value).__name__}."
        )
    return value


def load(raw: Mapping[str, Any], title: str = "config") -> Config:
    """Checked settings from the mapping `raw`.

    Raises
    ------
    UserError
        With every problem: unknown or misspelt keys, wrong types and ranges, names that refer to
        nothing.
    """
    if not isinstance(raw, Mapping):
        raise UserError(
            f"{title}: a config is a mapping of settings; this is a {type(raw).__name__}."
        )
    problems = Problems(title)
    config = _validated(Config, raw, problems)
    if config is None:
        config = _without_faults(raw)
    if config is not None:
        _check_references(config, raw, problems)
    problems.raise_if_any()
    if config is None:
        raise AssertionError("a config with faults, and no problem noted")
    return config


def parse(model: type[BaseModel], raw: Mapping[str, Any], title: str) -> Any:
    """Like `load`, for the slice of settings that a script is given as ``--params``."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{title}: settings are a mapping; this is a {type(raw).__name__}.")
    problems = Problems(title)
    parsed = _validated(model, raw, problems)
    problems.raise_if_any()
    return parsed


def _validated(model: type[BaseModel], raw: Mapping[str, Any], problems: Problems) -> Any:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        for item in error.errors():
            problems.add(*explain(item, model))
        return None


def _without_faults(raw: Mapping[str, Any]) -> Config | None:
    """What is left of `raw` without the settings that do not validate.

    References are checked in it, so that a misspelt key does not hide a missing data set.
    """
    left = copy.deepcopy(dict(raw))
    for _ in range(3):  # what a key leaves behind may itself be at fault: encoder, then section
        try:
            return Config.model_validate(left)
        except ValidationError as error:
            places = [_place(left, item["loc"]) for item in error.errors()]
        for owner, key in filter(None, places):
            owner.pop(key, None)
    return None


def _place(raw: dict[str, Any], loc: tuple[Any, ...]) -> tuple[dict[str, Any], Any] | None:
    """The innermost mapping of `raw` that `loc` leads to, and the key in it."""
    at: Any = raw
    found = None
    for part in loc:
        # What is no key is a position in a list or a method's name: then the part as a whole is meant.
        if isinstance(at, dict) and part in at:
            found = at, part
            at = at[part]
    return found


def _keys(raw: Any, *path: str) -> list[str]:
    """Keys that a user wrote (with a value) in the mapping at `path`; none where there is no mapping."""
    for part in path:
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return (
        [key for key, value in raw.items() if value is not None] if isinstance(raw, Mapping) else []
    )


def _check_references(config: Config, raw: Mapping[str, Any], problems: Problems) -> None:
    """Note names that refer to nothing. What was written (`raw`) counts, valid or not."""
    for name, dataset in config.datasets.items():
        _check_dataset(name, dataset, config.ndim, raw, problems)
    pools = {pool for dataset in config.datasets.values() for pool in dataset.pools}
    if config.datasets and all(name in pools for name in _keys(raw, "datasets")):
        problems.add("datasets", "all are pools of others; one must be evaluated.")
    for name, recipe in config.recipes.items():
        for key in ("window_hu", "percentiles"):
            low, high = getattr(recipe, key)
            if not low < high:
                message = f"low must be below high (given: [{low:g}, {high:g}])."
                problems.add(f"recipes.{name}.{key}", message)
    if len({recipe.ndim for recipe in config.recipes.values()}) > 1:
        message = "some have ndim 2, some 3. Write two configs, with a `work` and `results` each."
        problems.add("recipes", message)
    for name, encoder in config.encoders.items():
        if name in ENCODERS and name != encoder.method:
            message = f"'{name}' is the name of another method. Choose another name."
            problems.add(f"encoders.{name}", message)
        if (problem := _unfit(encoder, encoder.backbone, config.ndim)) is not None:
            problems.add(f"encoders.{name}.backbone", problem)
    for name, ablation in config.ablations.items():
        _check_ablation(config, raw, name, ablation, problems)
    check_starts(config, problems)
    check_tune(config, problems)
    check_values(config.encoders, config, problems)
    if not _keys(raw, "encoders") and raw.get("baselines") == []:
        problems.add("encoders", "neither encoders nor baselines: nothing to compare.")


def _unfit(encoder: Any, backbone: str, ndim: int) -> str | None:
    """Why the method does not train `backbone` on scans of `ndim` axes; None where it may."""
    if encoder.networks == "vit" and not looks_like_vit(backbone):
        vit = "monai-vit-tiny" if ndim == 3 else "vit_tiny_patch16_224"
        return f"{encoder.method} needs a plain ViT; '{backbone}' is none. Take {vit}, or method: simmim."
    if encoder.maps and backbone.startswith(SLICES):
        return (
            f"{encoder.method} fills in what was hidden of a volume, and '{backbone}' looks at slices one by one. Take"
            " an inflated- or a monai- network, or a method of views (simclr)."
        )
    return misfit(backbone, ndim, encoder.maps)


def _check_dataset(
    name: str, dataset: DatasetSettings, ndim: int, raw: Mapping[str, Any], problems: Problems
) -> None:
    place = f"datasets.{name}"
    given = [key for key in ("root", "npz", "phantom") if key in _keys(raw, "datasets", name)]
    if len(given) != 1:
        what = "none is" if not given else f"{' and '.join(given)} are"
        problems.add(place, f"give one of root, npz, phantom; {what} there.")
    if dataset.slices is not None and ndim == 3:
        problems.add(
            f"{place}.slices",
            "slices are images; write `ndim: 2` in the recipe, or leave them out.",
        )
    if dataset.slices is not None and dataset.phantom is not None:
        problems.add(f"{place}.slices", "the generated cohort has no volumes; leave them out.")
    if dataset.slices is not None and dataset.slices.crossing_mask and dataset.table is None:
        problems.add(
            f"{place}.slices.crossing_mask",
            "masks are named in a `table`; give one with a column `mask`.",
        )
    others = _keys(raw, "datasets")
    for pool in dataset.pools:
        if pool not in others:
            problems.add(
                f"{place}.pools", f"'{pool}' is not a data set.{did_you_mean(pool, others)}"
            )
        elif pool == name:
            problems.add(f"{place}.pools", "a data set is not its own pool. Remove it.")
    if dataset.classes is not None and len(set(dataset.classes)) < max(2, len(dataset.classes)):
        problems.add(
            f"{place}.classes", "name at least two different classes, or leave the key out."
        )


def _check_ablation(
    config: Config,
    raw: Mapping[str, Any],
    name: str,
    ablation: AblationSettings,
    problems: Problems,
) -> None:
    place = f"ablations.{name}"
    encoders = _keys(raw, "encoders")
    if ablation.of not in encoders:
        hint = did_you_mean(ablation.of, encoders)
        problems.add(f"{place}.of", f"'{ablation.of}' is not an encoder.{hint}")
    recipes = _keys(raw, "recipes") or list(config.recipes)
    if ablation.recipe is not None and ablation.recipe not in recipes:
        hint = did_you_mean(ablation.recipe, recipes)
        problems.add(f"{place}.recipe", f"'{ablation.recipe}' is not a recipe.{hint}")
    if not set(_keys(raw, "ablations", name)) - {"of", "recipe"}:
        problems.add(place, "has no axis. Add one, e.g. `epochs: [50, 200]`.")
    base = config.encoders.get(ablation.of)
    recipe = config.recipes.get(ablation.recipe or next(iter(config.recipes), ""))
    if base is None or recipe is None:
        return
    for axis, values in ablation.axes.items():
        _check_axis(f"{place}.{axis}", axis, values, base, recipe, problems)


def _check_axis(
    place: str, axis: str, values: list[Any], base: Any, recipe: Any, problems: Problems
) -> None:
    if axis == "method":
        for value in values:
            if value not in ENCODERS:
                problems.add(place, not_a_method(str(value)))
        return
    if axis == "ndim":
        problems.add(place, "images and volumes are not one ablation. Write two configs.")
        return
    known = [*type(base).model_fields, *type(recipe).model_fields]
    if axis not in known:
        problems.add(place, f"not a setting of encoder or recipe.{did_you_mean(axis, known)}")
        return
    owner: Any = recipe if axis in type(recipe).model_fields else base
    for value in values:
        if axis == "backbone" and isinstance(value, str):
            if (problem := misfit(value, recipe.ndim)) is not None:
                problems.add(place, problem)
            continue
        try:
            type(owner).model_validate({**owner.model_dump(), axis: value})
        except ValidationError as error:
            problems.add(place, explain(error.errors()[0], type(owner))[1])
