"""The journal of a search: Optuna's file storage, what is proposed next, what is told.

Trials are proposed in rounds. What a trial is given follows from the seed, its number and the trials of earlier
rounds alone, and only those count for pruning, since a round is told as a whole. So the same config gives the same
trials however many run at once, in whatever order they end, and whoever is killed on the way.

The lock is an exclusively created file (`JournalFileOpenLock`; NFS from version 3 on keeps it). Optuna's default, a
symbolic link, waits for ever on a dead one where the journal was named by a relative path. A lock whose owner was
killed is broken after half a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from fewscans.config.stages import TuneParams
from fewscans.keyed import key_of
from fewscans.tune.space import is_whole, spans

optuna.logging.set_verbosity(optuna.logging.WARNING)
log = logging.getLogger("fewscans")

NAME = "search"
# Trials drawn at random before the sampler learns from them; finished ones that a median needs.
N_RANDOM, N_MEDIAN = 8, 4
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_journal(path: Path, params: TuneParams | None = None) -> optuna.Study:
    """The study in the file `path`; made where `params` are given and it is not there."""
    backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    storage = JournalStorage(backend)
    pruner: Any = optuna.pruners.NopPruner()
    if params is not None and params.prune:
        pruner = _MedianOfEarlierRounds(params.parallel)
    try:  # `create_study` would add a line to a journal that has the study already
        return optuna.load_study(study_name=NAME, storage=storage, pruner=pruner)
    except KeyError:
        if params is None:
            raise
    return optuna.create_study(
        study_name=NAME, storage=storage, direction="minimize", pruner=pruner
    )


def round_start(number: int, parallel: int) -> int:
    """Number of the first trial of the round that `number` belongs to."""
    return number - number % parallel


class _MedianOfEarlierRounds(optuna.pruners.MedianPruner):
    """Also where a round was cut short, told, and is gone on with: its own members are never compared with."""

    def __init__(self, parallel: int) -> None:
        super().__init__(n_startup_trials=N_MEDIAN)
        self.parallel = parallel

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is worse than their median at the same look."""
        earlier = optuna.create_study(direction="minimize")
        known = study.get_trials(deepcopy=False)[: round_start(trial.number, self.parallel)]
        earlier.add_trials(known)
        return super().prune(earlier, trial)


def distributions(params: TuneParams) -> dict[str, BaseDistribution]:
    """The space, value by value."""
    made: dict[str, BaseDistribution] = {}
    for name, span, owner in spans(params):
        if span.choices is not None:
            made[name] = CategoricalDistribution(span.choices)
        elif is_whole(owner, name):
            made[name] = IntDistribution(int(span.low or 0), int(span.high or 0), log=span.log)
        else:
            made[name] = FloatDistribution(span.low or 0.0, span.high or 0.0, log=span.log)
    return made


def propose(study: optuna.Study, params: TuneParams, number: int) -> dict[str, Any]:
    """Write down trial `number` as running, in one entry of the journal, and return its values.

    Trial 0 is the config as it stands, as far as its values lie in the space: what is found is never worse than it
    on the inner folds.
    """
    space = distributions(params)
    key = key_of("tune-trial", params.base_seed, params.encoder, params.fold, number)
    sampler = optuna.samplers.TPESampler(
        seed=key % 2**32, n_startup_trials=N_RANDOM, constant_liar=True
    )
    memory = optuna.create_study(direction="minimize", sampler=sampler)
    first = round_start(number, params.parallel)  # nothing after it has been told
    memory.add_trials([_as_known(trial, first) for trial in study.get_trials()[:number]])
    if number == 0:
        memory.enqueue_trial(_config_values(params, space))
    values = memory.ask(space).params
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.RUNNING, params=values, distributions=space)
    )
    return values


def _as_known(trial: FrozenTrial, first: int) -> FrozenTrial:
    """`trial` as the round that begins with number `first` sees it: its own members are under way, no more."""
    if trial.number < first:
        return trial
    return optuna.trial.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )


def _config_values(params: TuneParams, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    values = {
        name: getattr(owner, name.partition(".")[2])
        for name, _, owner in spans(params)
    }  # fmt: skip
    return {
        name: value
        for name, value in values.items()
        if value is not None
        and (
            value in space[name].choices  # type: ignore[attr-defined]
            if isinstance(space[name], CategoricalDistribution)
            else space[name]._contains(space[name].to_internal_repr(value))
        )
    }


def trial_of(study: optuna.Study, number: int) -> Trial:
    """Trial `number` as something to report to."""
    return Trial(study, study.get_trials()[number]._trial_id)


def tell(study: optuna.Study, number: int, result: Mapping[str, Any]) -> None:
    """End trial `number` with what it wrote; a trial that was told already is left alone."""
    trial = trial_of(study, number)
    if study.get_trials()[number].state in FINISHED:
        return
    for name in ("seconds", "reason", "attempts"):
        if result.get(name) is not None:
            trial.set_user_attr(name, result[name])
    state = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }[result["state"]]
    study.tell(number, result["value"] if state == TrialState.COMPLETE else None, state=state)
