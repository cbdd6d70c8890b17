"""From a pydantic error to a line that a user can act on: where, what is wrong, the way out."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from fewscans.config.encoders import ENCODERS, FAULTY
from fewscans.errors import did_you_mean

# pydantic's error types, in our words; {..} are entries of the error's context.
BOUNDS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "finite_number": "must be a finite number",
    "string_too_long": "is too long: at most {max_length} characters",
}
TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (quote it)",
    "list_type": "a list, e.g. [a, b]",
    "tuple_type": "a list, e.g. [a, b]",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}


def explain(item: Any, root: type[BaseModel]) -> tuple[str, str]:
    """(key, sentence) of one pydantic error of the model `root`."""
    loc, model = _walk(item["loc"], root)
    place = ".".join(str(part) for part in loc) or "config"
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(model.model_fields) if model else []
        return place, f"unknown key.{did_you_mean(str(loc[-1]), known)}"
    if kind == "missing":
        return place, "is missing. Add it."
    if kind == "union_tag_invalid":
        tag = context["tag"]
        return f"{place}.method", not_a_method(tag)
    if kind == "union_tag_not_found":
        methods = ", ".join(sorted(ENCODERS))
        return f"{place}.method", f"is missing: which method makes this encoder? Known: {methods}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        return place, f"'{given}' is not known.{did_you_mean(str(given), known)}"
    if loc[:1] == ["budgets"] and len(loc) == 2:
        ways = "Write a number of patients (10), a share (50%) or all."
        return place, f"'{given}' is not a budget. {ways}"
    if kind == "string_pattern_mismatch":
        how = "Use a-z, 0-9, '.' and '-' (names become file names)."
        return place, f"'{given}' is not a name. {how}"
    if loc[:1] == ["ablations"] and len(loc) > 3:
        place = ".".join(str(part) for part in loc[:4])
        return place, f"an axis has numbers, words, true or false (given: {given!r})"
    if kind == "too_short":
        return (
            place,
            f"has {context['actual_length']} entries; at least {context['min_length']} needed.",
        )
    if kind in BOUNDS:
        shown = {key: number(value) for key, value in context.items()}
        return place, f"{BOUNDS[kind].format(**shown)} (given: {given!r})"
    if kind in TYPES:
        return place, f"must be {TYPES[kind]} (given: {given!r})"
    return place, f"{item['msg'][0].lower()}{item['msg'][1:]} (given: {given!r})"


def not_a_method(name: str) -> str:
    """Why no encoder can have the method `name`."""
    if name in FAULTY:
        return f"'{name}' cannot be used. {FAULTY[name]}"
    return f"'{name}' is not a method.{did_you_mean(name, ENCODERS)}"


def number(value: Any) -> str:
    """`value` as a user would write it: 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _walk(loc: tuple[Any, ...], root: type[BaseModel]) -> tuple[list[Any], type[BaseModel] | None]:
    """(`loc` as the user wrote it, the model in which its last part stands).

    Where a union is told apart by `method`, pydantic puts the method's name into `loc`; it is no key.
    """
    shown: list[Any] = []
    here: Any = root  # the annotation of what `shown` leads to
    owner: type[BaseModel] | None = root
    for part in loc:
        if part == "[key]":
            continue
        if part in ENCODERS and _is_tagged(here):
            here = ENCODERS[part]
            continue
        shown.append(part)
        owner = here if _is_model(here) else None
        if owner is not None:
            field = owner.model_fields.get(part)
            here = field.annotation if field is not None else None
        else:
            here = _element(here)
    return shown, owner


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_tagged(annotation: Any) -> bool:
    """Whether `annotation` is the union of encoders, perhaps in `Annotated`; a dict of them is not."""
    if get_origin(annotation) is Annotated:
        return _is_tagged(get_args(annotation)[0])
    return get_origin(annotation) in (Union, UnionType) and len(_models(annotation)) > 1


def _models(annotation: Any) -> list[Any]:
    if _is_model(annotation):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _element(annotation: Any) -> Any:
    """What a dict or list of `annotation` holds; `Model | None` is its model."""
    found = _models(annotation)
    return found[0] if len(found) == 1 else (get_args(annotation) or (None,))[-1]
