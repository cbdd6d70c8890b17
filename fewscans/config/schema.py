"""JSON Schema of a config file, for editors: from the models, in few words, in two files.

``config/schema.json`` holds everything but the methods' settings, which ``config/schema.encoders.json`` holds: each
refers to the other, by file name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from fewscans.config.encoders import METHODS, PretrainSettings
from fewscans.config.models import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAIN, ENCODERS = "schema.json", "schema.encoders.json"
# Between a sentence and the next one.
_FIRST = re.compile(r"(?<=[\w)`%][.:;]) (?=[A-Z`])")


def files() -> dict[str, str]:
    """File name -> text."""
    made = _shared(_tight(schema()))
    groups = made.pop("$defs")
    apart = {model.__name__ for model in METHODS.values()} | {PretrainSettings.__name__}
    parts = {
        MAIN: {**made, "$defs": {k: v for k, v in groups.items() if k not in apart}},
        ENCODERS: {"$schema": DIALECT, "$defs": {k: v for k, v in groups.items() if k in apart}},
    }
    return {
        name: _laid_out(_elsewhere(part, part["$defs"], next(n for n in parts if n != name))) + "\n"
        for name, part in parts.items()
    }


def _elsewhere(node: Any, here: dict[str, Any], other: str) -> Any:
    """`node` whose references to definitions that are not `here` name the `other` file."""
    if isinstance(node, list):
        return [_elsewhere(entry, here, other) for entry in node]
    if isinstance(node, dict):
        return {key: _elsewhere(value, here, other) for key, value in node.items()}
    if isinstance(node, str) and node.startswith("#/$defs/") and node[8:] not in here:
        return other + node
    return node


def schema() -> dict[str, Any]:
    """JSON Schema of a config file: what all methods have alike is said once."""
    made = _models()
    head = {"$schema": DIALECT, "title": "fewscans config"}
    return {**head, **_said_once(made)}


def _models() -> dict[str, Any]:
    """JSON Schema of a config as pydantic makes it, without its titles."""
    return without_titles(Config.model_json_schema(mode="validation"))


def _said_once(made: dict[str, Any]) -> dict[str, Any]:
    """`made` with what most self-supervised methods have alike in one definition, which all of theirs refer to."""
    groups = made["$defs"]
    names = [model.__name__ for model in METHODS.values()]
    counts = Counter(
        (key, json.dumps(node))
        for name in names
        for key, node in groups[name]["properties"].items()
    )
    alike = {key: json.loads(node) for (key, node), n in counts.items() if 2 * n > len(names)}
    base = PretrainSettings.__name__
    slim: dict[str, Any] = {base: {"description": PretrainSettings.__doc__, "properties": alike}}
    for name in names:
        group = {key: value for key, value in groups[name].items() if key != "additionalProperties"}
        own = {key: node for key, node in group["properties"].items() if node != alike.get(key)}
        group |= {"properties": own, "unevaluatedProperties": False}
        slim[name] = {**group, "allOf": [{"$ref": f"#/$defs/{base}"}]}
    return {**made, "$defs": {**groups, **slim}}


def _tight(node: Any) -> Any:
    """The same schema in fewer words: ``type: [integer, null]`` for a choice of both, no default that is null.

    Defaults of groups of settings are left out: those of their keys say the same; so is the type of what is one of some
    words. Of a description the first sentence is left, which an editor shows; the docs have all of it.
    """
    if isinstance(node, list):
        return [_tight(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    made = {
        k: _tight(v) for k, v in node.items() if k != "default" or not (v is None or "$ref" in node)
    }
    if isinstance(made.get("description"), str):
        made["description"] = _FIRST.split(" ".join(made["description"].split()), maxsplit=1)[0]
    if {"enum", "const"} & set(made):
        made.pop("type", None)
    match made.get("anyOf"):
        # Bounds speak of numbers, texts and lists alone, so null passes them; a constant or a reference would not.
        case [{"type": str(kind), **bounds}, {"type": "null"}] if not {"const", "enum"} & set(
            bounds
        ):
            made = {
                "type": [kind, "null"],
                **bounds,
                **{k: v for k, v in made.items() if k != "anyOf"},
            }
    return made


def _shared(made: dict[str, Any]) -> dict[str, Any]:
    """The same schema with keys that several groups have alike in definitions of their own."""
    groups = made["$defs"]
    counts = Counter(
        (key, json.dumps(node))
        for group in groups.values()
        for key, node in group.get("properties", {}).items()
    )
    alike = {
        one: f"{one[0]} {i}"
        for i, (one, n) in enumerate(counts.items())
        if n > 1 and len(one[1]) > 99
    }
    for group in groups.values():
        for key, node in group.get("properties", {}).items():
            if name := alike.get((key, json.dumps(node))):
                group["properties"][key] = {"$ref": f"#/$defs/{name}"}
    return {
        **made,
        "$defs": {**groups, **{name: json.loads(one[1]) for one, name in alike.items()}},
    }


def _laid_out(node: Any, width: int = 240) -> str:
    """JSON with a line for what fits in one, so that the file stays small and its differences readable."""
    line = json.dumps(node, separators=(",", ":"))
    if len(line) <= width or not isinstance(node, (dict, list)) or not node:
        return line
    begin, end = "{}" if isinstance(node, dict) else "[]"
    parts = (
        [f"{json.dumps(key)}:{_laid_out(value, width)}" for key, value in node.items()]
        if isinstance(node, dict)
        else [_laid_out(value, width) for value in node]
    )
    return f"{begin}\n" + ",\n".join(parts) + f"\n{end}"


def without_titles(node: Any, in_properties: bool = False) -> Any:
    """A schema of pydantic's without the titles it makes of names."""
    if isinstance(node, list):
        return [without_titles(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if in_properties or key != "title"}
    names = ("properties", "$defs", "default")
    return {key: without_titles(value, key in names) for key, value in kept.items()}
