"""What a finished search writes down: its best trial, and all of them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from fewscans.config.stages import TuneParams
from fewscans.errors import UserError
from fewscans.files import canonical_json
from fewscans.tune.labels import Labelled
from fewscans.tune.submit import LOG


def best_of(
    study: optuna.Study, params: TuneParams, labelled: Labelled, mark: str
) -> dict[str, Any]:
    """best.json; `mark` is the identity of the search.

    Raises
    ------
    UserError
        No trial succeeded.
    """
    trials = study.get_trials()[: params.trials]
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not done:
        raise UserError(f"{params.encoder}: none of {len(trials)} trials succeeded. See {LOG} of each.")  # fmt: skip
    best = min(done, key=lambda trial: (trial.value, trial.number))
    states = [trial.state.name.lower() for trial in trials]
    return {
        "encoder": params.encoder, "recipe": params.recipe_name, "dataset": params.dataset,
        "fold": params.fold, "protocol": params.arm.protocol, "digest": mark,
        "metric": "inner_log_loss", "value": best.value, "trial": best.number, "values": best.params,
        "config_value": trials[0].value if trials[0].state == TrialState.COMPLETE else None,
        "trials": {state: states.count(state) for state in ("complete", "pruned", "fail")},
        "max_steps": params.max_steps, "budget": labelled.budget,
        "n_labelled_patients": labelled.n_patients, "n_labelled_scans": len(labelled.task.labelled),
        "inner_folds": len(labelled.task.inner_folds),
        "folds_that_test_these_labels": labelled.tested_elsewhere,
        "device_seconds": round(sum(t.user_attrs.get("seconds", 0.0) for t in trials), 3),
        "versions": {"optuna": version("optuna")},
    }  # fmt: skip


def table_of(study: optuna.Study, params: TuneParams) -> pd.DataFrame:
    """trials.parquet: a row for each trial."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "values": canonical_json(trial.params),
            "looks": [trial.intermediate_values[k] for k in sorted(trial.intermediate_values)],
            "seconds": trial.user_attrs.get("seconds"),
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in study.get_trials()[: params.trials]
    ]
    return pd.DataFrame(rows)
