"""Settings of the search for hyper-parameters, and what must hold for it to be an honest one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from fewscans.config.base import Budget, Name, Settings
from fewscans.config.encoders import ENCODERS
from fewscans.config.explain import explain
from fewscans.errors import Problems, did_you_mean

# What makes an encoder another arm, or has no effect on its weights.
FIXED = ("method", "backbone", "patch_size", "transductive", "weights", "checkpoint_minutes", "ranks")  # fmt: skip
# Baselines that have something to search.
TUNABLE_BASELINES = ("random", "scratch", "imagenet")

_Budget = Annotated[
    Budget,
    BeforeValidator(
        lambda value: str(value) if type(value) is int else value,
        json_schema_input_type=Budget | int,
    ),
]


class Span(Settings):
    """Where one setting is searched: `{low: 0.01, high: 1, log: true}` or `{choices: [0.1, 0.5]}`."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Search evenly in the logarithm."""
    choices: Annotated[list[int | float | str | bool], Field(min_length=2)] | None = None
    """These values alone, in place of a range."""


class TunedArm(Settings):
    """What is searched for one encoder, and by which protocol its values are judged."""

    protocol: Literal["linear", "knn", "finetune"] = "linear"
    """Judge on the inner folds: a probe, or fine-tuning."""
    encoder: dict[str, Span] = {}
    """Settings of the encoder, e.g. `lr`, `temperature`, `strength`."""
    protocol_settings: dict[str, Span] = {}
    """Settings of the protocol, e.g. `lr`, `weight_decay`, `steps` of `finetune`."""


class TuneSettings(Settings):
    """Search for hyper-parameters with an equal budget for every arm: `snakemake tuned`."""

    arms: dict[Name, TunedArm] = Field(min_length=1)
    """By name of an encoder, or of a baseline (`scratch`, `imagenet`, `random`: each of its networks)."""
    trials: int = Field(default=20, ge=2, le=10_000)
    """Trials of every arm, pruned and failed ones included."""
    max_steps: int = Field(default=50_000, ge=1)
    """Training steps that a trial may take, pretraining and one fine-tuning together; the same for every arm.
    A space that reaches beyond is refused."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Trials of a round: proposed together, from what earlier rounds have shown. Belongs to the result; how many of
    them run at once does not."""
    budget: _Budget | None = None
    """Labelled patients whose inner folds choose (draw 0); without it the smallest budget that has inner folds."""
    folds: list[str] | None = None
    """Outer folds to search on, each a search of its own; without it all. A choice made on one fold has used labels
    that other folds test."""
    prune: bool = True
    """End trials early that stand below the median of the finished ones at the same point."""
    use: bool = False
    """Train with the values found, each fold with its own; then the search runs before `pretrain` and `finetune`."""


def check_tune(config: Any, problems: Problems) -> None:
    """Note what is wrong with the section `tune` of a config."""
    tune: TuneSettings | None = config.tune
    if tune is None:
        return
    known = [*config.encoders, *TUNABLE_BASELINES]
    for name, arm in tune.arms.items():
        place = f"tune.arms.{name}"
        if name not in known:
            problems.add(place, f"'{name}' is no encoder that can be tuned.{did_you_mean(name, known)}")  # fmt: skip
        elif name in TUNABLE_BASELINES and name not in config.baselines:
            problems.add(place, f"'{name}' is not among the baselines. Add it there.")
        else:
            settings = config.encoders.get(name) or ENCODERS[name].model_validate({})
            for key, message in _faults(config, settings, arm):
                problems.add(".".join(filter(None, [place, key])), message)
    baseline = config.compare.baseline
    if baseline in (*TUNABLE_BASELINES, "scratch-long") and baseline not in tune.arms:
        problems.add(
            "tune.arms",
            f"the baseline '{baseline}' is not among them: tuned arms against an untuned baseline is no comparison "
            "of methods. "
            + (
                "Compare with scratch, and tune it."
                if baseline == "scratch-long"
                else "Add it; it gets as many trials as the others."
            ),
        )
    _check_folds(config, tune, problems)


def _faults(config: Any, settings: Any, arm: TunedArm) -> Iterator[tuple[str, str]]:
    """(key, message) for each fault of an arm's spaces."""
    if arm.protocol not in settings.protocols:
        legal = ", ".join(settings.protocols)
        yield "protocol", f"{settings.method} has no protocol '{arm.protocol}'. It has: {legal}."
    if getattr(settings, "transductive", False):
        yield "", "is transductive: it sees test scans, and a search never does. Leave it out."
    if getattr(settings, "start", None) or getattr(settings, "stage", False):
        yield (
            "",
            "is part of a chain (`start`, `stage`), and a trial is one training. Leave it out.",
        )
    if settings.wants():
        yield (
            "",
            f"needs to know {' and '.join(settings.wants())} of scans, which trials are not told. Leave it out.",
        )
    if getattr(settings, "ranks", 1) > 1:
        yield "", "trains on several GPUs; a trial is one process. Tune it with `ranks: 1`."
    if not arm.encoder and not arm.protocol_settings:
        yield "", "has nothing to search. Add e.g. `encoder: {lr: {low: 0.01, high: 1, log: true}}`."  # fmt: skip
    if arm.encoder and settings.source != "pretrain":
        yield (
            "encoder",
            f"{settings.method} trains nothing before labels. Search its `protocol_settings`.",
        )
        return
    used = getattr(config.protocol_settings, arm.protocol)
    for key, owner, spans in (
        ("encoder", settings, arm.encoder),
        ("protocol_settings", used, arm.protocol_settings),
    ):
        for name, span in spans.items():
            fields = [f for f in type(owner).model_fields if f not in FIXED]
            if name not in fields:
                yield f"{key}.{name}", f"is no setting to search.{did_you_mean(name, fields)}"
                continue
            for message in _span_faults(owner, name, span):
                yield f"{key}.{name}", message


def _span_faults(owner: Any, name: str, span: Span) -> Iterator[str]:
    if (span.low is None) != (span.high is None) or (span.low is None) == (span.choices is None):
        yield "give low and high, or choices."
        return
    if span.choices is not None:
        values: list[Any] = list(span.choices)
    else:
        values = [span.low, span.high]
        if not values[0] < values[1]:
            yield f"low must be below high (given: {span.low:g}, {span.high:g})."
        elif span.log and values[0] <= 0:
            yield f"with `log: true`, low must be above 0 (given: {span.low:g})."
    for value in values:
        try:
            type(owner).model_validate({**owner.model_dump(), name: value})
        except ValidationError as error:
            yield explain(error.errors()[0], type(owner))[1]


def _check_folds(config: Any, tune: TuneSettings, problems: Problems) -> None:
    kinds = {dataset.split for dataset in config.datasets.values()}
    known = [str(i) for i in range(config.validation.folds)] if "grouped" in kinds else []
    known += ["official"] if "official" in kinds else []
    for fold in tune.folds or []:
        if fold not in known:
            problems.add("tune.folds", f"no fold '{fold}'.{did_you_mean(fold, known)}")
    if tune.use and tune.folds is not None:
        problems.add(
            "tune.folds",
            "with `use: true` every fold is trained with values of its own. Leave `folds` out.",
        )
