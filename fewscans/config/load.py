"""From what a user wrote to a checked `Config`: all problems at once, each with a way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fewscans.config.encoders import ENCODERS
from fewscans.config.models import Config
from fewscans.errors import Problems, UserError, did_you_mean


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read a YAML config as a mapping (no objects are built from it)."""
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Copy config/examples/template.yaml to begin.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a config is a mapping of settings; this is a {type(value).__name__}.")
    return value


def load(raw: Mapping[str, Any], title: str = "config") -> Config:
    """Checked settings from the mapping `raw`.

    Raises
    ------
    UserError
        With every problem: unknown or misspelt keys, wrong types and ranges, names that refer to nothing.
    """
    problems = Problems(title)
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        for item in error.errors():
            problems.add(*_explain(item))
        problems.raise_if_any()
        raise AssertionError("a ValidationError without errors") from error
    _check_references(config, problems)
    problems.raise_if_any()
    return config


def parse(model: type[BaseModel], raw: Mapping[str, Any], title: str) -> Any:
    """Like `load`, for the slice of settings that a script is given as ``--params``."""
    problems = Problems(title)
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        for item in error.errors():
            problems.add(*_explain(item, model))
        problems.raise_if_any()
        raise AssertionError("a ValidationError without errors") from error


def _explain(item: Any, root: type[BaseModel] = Config) -> tuple[str, str]:
    """(key, sentence) of one pydantic error."""
    loc = [part for part in item["loc"] if part not in ENCODERS or item["loc"][0] != "encoders"]
    # The discriminator value stands in `loc` behind the encoder's name, and an encoder may be called like it.
    if item["loc"][:1] == ("encoders",):
        loc = [part for i, part in enumerate(item["loc"]) if i != 2 or part not in ENCODERS]
    loc = [part for part in loc if part != "[key]"]
    place = ".".join(str(part) for part in loc) or "config"
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        siblings = _keys_beside(item["loc"], root)
        return place, f"unknown key.{did_you_mean(str(loc[-1]), siblings)}"
    if kind == "missing":
        return place, "is missing. Add it."
    if kind == "union_tag_invalid":
        return f"{place}.method", f"'{item['ctx']['tag']}' is not a method.{did_you_mean(item['ctx']['tag'], ENCODERS)}"
    if kind == "union_tag_not_found":
        return f"{place}.method", f"is missing: which method makes this encoder? Known: {', '.join(sorted(ENCODERS))}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"]) or [item["ctx"]["expected"]]
        return place, f"'{given}' is not known.{did_you_mean(str(given), known)}"
    if kind == "string_pattern_mismatch":
        if loc[0] == "budgets":
            return place, f"'{given}' is not a budget. Write a number of patients (10), a share (50%) or all."
        return place, f"'{given}' is not a name. Use a-z, 0-9, '.' and '-' (names become file names)."
    message = item["msg"][0].lower() + item["msg"][1:]
    return place, f"{message} (given: {given!r})"


def _keys_beside(loc: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """Keys that would have been legal where the unknown key `loc[-1]` stands."""
    model: Any = root
    for part in loc[:-1]:
        if isinstance(part, str) and part in ENCODERS and not _is_model(model):
            model = ENCODERS[part]
            continue
        field = model.model_fields.get(part) if _is_model(model) else None
        if field is not None:
            model = _first_model(field.annotation)
        if model is None:
            return []
    return list(model.model_fields) if _is_model(model) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _first_model(annotation: Any) -> Any:
    """The model inside `dict[Name, Model]`, `Model | None`; the annotation of encoders stays a union."""
    if _is_model(annotation):
        return annotation
    models = [found for found in map(_first_model, get_args(annotation)) if found is not None]
    return models[0] if len(models) == 1 else (annotation if models else None)


def _check_references(config: Config, problems: Problems) -> None:
    for name, dataset in config.datasets.items():
        place = f"datasets.{name}"
        given = [key for key in ("root", "npz", "phantom") if getattr(dataset, key) is not None]
        if len(given) != 1:
            what = "none is" if not given else f"{' and '.join(given)} are"
            problems.add(place, f"give one of root, npz, phantom; {what} there.")
        for pool in dataset.pools:
            if pool not in config.datasets:
                problems.add(f"{place}.pools", f"'{pool}' is not a data set.{did_you_mean(pool, config.datasets)}")
            elif pool == name:
                problems.add(f"{place}.pools", "a data set is not its own pool. Remove it.")
        if dataset.classes is not None and len(set(dataset.classes)) < max(2, len(dataset.classes)):
            problems.add(f"{place}.classes", "name at least two different classes, or leave the key out.")
    if all(_only_pool(config, name) for name in config.datasets):
        problems.add("datasets", "all are pools of others; one must be evaluated.")
    for name, recipe in config.recipes.items():
        for key in ("window_hu", "percentiles"):
            low, high = getattr(recipe, key)
            if not low < high:
                problems.add(f"recipes.{name}.{key}", f"low must be below high (given: [{low}, {high}]).")
    for name in config.encoders:
        if name in ENCODERS and name != config.encoders[name].method:
            problems.add(f"encoders.{name}", f"'{name}' is the name of another method. Choose another name.")
    for name, ablation in config.ablations.items():
        _check_ablation(config, name, ablation, problems)
    if not config.encoders and not config.baselines:
        problems.add("encoders", "neither encoders nor baselines: nothing to compare.")


def _only_pool(config: Config, name: str) -> bool:
    return any(name in other.pools for other in config.datasets.values())


def _check_ablation(config: Config, name: str, ablation: Any, problems: Problems) -> None:
    place = f"ablations.{name}"
    if ablation.of not in config.encoders:
        problems.add(f"{place}.of", f"'{ablation.of}' is not an encoder.{did_you_mean(ablation.of, config.encoders)}")
        return
    if ablation.recipe is not None and ablation.recipe not in config.recipes:
        problems.add(f"{place}.recipe", f"no such recipe.{did_you_mean(ablation.recipe, config.recipes)}")
        return
    if not ablation.axes:
        problems.add(place, "has no axis. Add one, e.g. `epochs: [50, 200]`.")
    base = config.encoders[ablation.of]
    recipe = config.recipes[ablation.recipe or next(iter(config.recipes))]
    for axis, values in ablation.axes.items():
        owner: BaseModel = recipe if axis in type(recipe).model_fields else base
        methods = [str(value) for value in values] if axis == "method" else []
        for value in methods:
            if value not in ENCODERS:
                problems.add(f"{place}.method", f"'{value}' is not a method.{did_you_mean(value, ENCODERS)}")
        if methods:
            continue
        known = [key for key in [*type(base).model_fields, *type(recipe).model_fields] if key != "of"]
        if axis not in known:
            problems.add(f"{place}.{axis}", f"not a setting of encoder or recipe.{did_you_mean(axis, known)}")
            continue
        for value in values:
            try:
                type(owner).model_validate({**owner.model_dump(), axis: value})
            except ValidationError as error:
                problems.add(f"{place}.{axis}", f"{_explain(error.errors()[0], type(owner))[1]}")
