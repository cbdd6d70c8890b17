"""Values of a trial, and the settings they make. Light: no optuna here.

A value's name is ``encoder.lr`` or ``protocol.lr``: the two may search settings of the same name.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from fewscans.batches import training_steps
from fewscans.config.encoders import PretrainSettings
from fewscans.config.models import ProtocolSettings
from fewscans.config.stages import FinetuneParams, PretrainParams, TuneParams
from fewscans.config.tune import Span
from fewscans.errors import UserError

Values = Mapping[str, Any]


def spans(params: TuneParams) -> Iterator[tuple[str, Span, Any]]:
    """(name of the value, where it is searched, settings it belongs to), in the order written."""
    for name, span in params.arm.encoder.items():
        yield f"encoder.{name}", span, params.settings
    owner = getattr(params.protocol_settings, params.arm.protocol)
    for name, span in params.arm.protocol_settings.items():
        yield f"protocol.{name}", span, owner


def is_whole(owner: Any, name: str) -> bool:
    """Whether a setting takes whole numbers only."""
    annotation = type(owner).model_fields[name.partition(".")[2]].annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return int in get_args(annotation) and float not in get_args(annotation)
    return annotation is int


def changed(settings: Any, values: Values, kind: str) -> Any:
    """`settings` with the values of `kind` (``encoder`` or ``protocol``) in them, checked."""
    mine = {name.partition(".")[2]: v for name, v in values.items() if name.startswith(f"{kind}.")}
    return type(settings).model_validate({**settings.model_dump(), **mine}) if mine else settings


def protocol_changed(settings: ProtocolSettings, protocol: str, values: Values) -> ProtocolSettings:
    """`settings` with the values of one protocol in them."""
    made = changed(getattr(settings, protocol), values, "protocol")
    return settings.model_copy(update={protocol: made})


def most_steps(params: TuneParams, epoch_steps: Any) -> int:
    """Training steps of the longest trial that the space holds: pretraining, then one fine-tuning.

    `epoch_steps(batch_size)` says how many steps an epoch has.
    """
    ends = {name: _values(span) for name, span, _ in spans(params)}
    steps = 0
    if isinstance(params.settings, PretrainSettings):
        batch = min(ends.get("encoder.batch_size", [params.settings.batch_size]))
        lengths = [
            int(max(ends[f"encoder.{key}"]))
            if f"encoder.{key}" in ends
            else getattr(params.settings, key)
            for key in ("epochs", "steps")
        ]
        steps += training_steps(epoch_steps(int(batch)), *lengths)
    if params.arm.protocol == "finetune":
        steps += int(max(ends.get("protocol.steps", [params.protocol_settings.finetune.steps])))
    return steps


def middle(params: TuneParams, *, longest: bool = False) -> dict[str, Any]:
    """Values in the middle of the space; with `longest` those of its longest trial."""
    made: dict[str, Any] = {}
    for name, span, owner in spans(params):
        key = name.partition(".")[2]
        if span.choices is not None:
            numbers = [v for v in span.choices if isinstance(v, int | float)]
            ends = numbers if len(numbers) == len(span.choices) else []
            made[name] = span.choices[len(span.choices) // 2]
        else:
            ends = [span.low or 0.0, span.high or 0.0]
            made[name] = (ends[0] * ends[1]) ** 0.5 if span.log else sum(ends) / 2
        if longest and ends and key in ("epochs", "steps", "batch_size"):
            made[name] = min(ends) if key == "batch_size" else max(ends)
        if span.choices is None and is_whole(owner, name):
            made[name] = round(made[name])
    return made


def _values(span: Span) -> list[float]:
    if span.choices is not None:
        return [float(value) for value in span.choices]
    return [float(span.low or 0), float(span.high or 0)]


# -- using what was found --------------------------------------------------------------------------


def read_best(path: Path, encoder: str, dataset: str, fold: str) -> dict[str, Any]:
    """best.json, after making sure that it was made for this encoder, data set and fold.

    Raises
    ------
    UserError
        It cannot be read, or belongs to something else: values chosen on another fold have seen this one's tests.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as the result of a search ({error}).") from None
    for key, wanted in (("encoder", encoder), ("dataset", dataset), ("fold", fold)):
        if found.get(key) != wanted:
            raise UserError(f"{path}: was searched for {key} '{found.get(key)}', not '{wanted}'.")
    return found


def use_in_pretrain(params: PretrainParams, path: Path) -> PretrainParams:
    """`params` with the encoder's values of a finished search."""
    best = read_best(path, params.encoder, params.dataset, params.fold)
    return params.model_copy(
        update={"settings": changed(params.settings, best["values"], "encoder")}
    )


def use_in_finetune(params: FinetuneParams, path: Path) -> tuple[FinetuneParams, list[str]]:
    """`params` with the values of a finished search: the encoder's, and those of the protocol that judged.

    Also the protocols whose runs follow from such values: all of them, where the encoder's are among these.
    """
    best = read_best(path, params.encoder, params.dataset, params.fold)
    made = {"settings": changed(params.settings, best["values"], "encoder")}
    if best["protocol"] in params.protocols:
        made["protocol_settings"] = protocol_changed(
            params.protocol_settings, best["protocol"], best["values"]
        )
    of_encoder = any(name.startswith("encoder.") for name in best["values"])
    tuned = [name for name in params.protocols if of_encoder or name == best["protocol"]]
    return params.model_copy(update=made), tuned
