"""Logistic regression on frozen, standardised features; its strength chosen by inner folds.

Features are standardised with the mean and spread of the labelled scans that the model is fitted
on. Classes are not reweighted: probabilities then follow the frequencies of the labelled scans, as
those of `prior`, `knn` and `finetune` do, and stay comparable between arms; ranking metrics hardly
see the difference.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fewscans.config.models import LinearSettings
from fewscans.protocols.task import Outcome, Task, choose, common_flags


def run(task: Task, settings: LinearSettings, source: Any) -> Outcome:
    """Probabilities of a linear probe.

    `source.features`: [N, E], a row per scan of the fold. Flags: `no-inner-validation` where C is
    the default, `not-converged` where the solver stopped at `max_iter`.
    """
    features = np.asarray(source.features, dtype=np.float64)
    x = features[task.labelled]

    def predict(c: float, train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        return fit_predict(
            x[train], task.targets[train], x[held], c, task.n_classes, settings.max_iter
        )[0]

    chosen = choose(task, sorted(settings.c), predict)
    c = settings.default_c if chosen is None else chosen.value
    test_prob, converged = fit_predict(
        x, task.targets, features[task.test], c, task.n_classes, settings.max_iter
    )
    flags = common_flags(task, test_prob)
    if not converged:
        flags.append("not-converged")
    if chosen is None:
        return Outcome(test_prob, None, {"c": c, "by": "default"}, [*flags, "no-inner-validation"])
    choices = {"c": c, "by": "inner-folds", "inner_loss": round(chosen.loss, 6)}
    return Outcome(test_prob, chosen.val_prob, choices, flags)


def fit_predict(
    x: NDArray[np.float64],
    targets: NDArray[np.int64],
    x_new: NDArray[np.float64],
    c: float,
    n_classes: int,
    max_iter: int,
) -> tuple[NDArray[np.float64], bool]:
    """([m, K] probabilities of `x_new`, whether the solver converged); absent classes get 0."""
    prob = np.zeros((len(x_new), n_classes))
    present = np.unique(targets)
    if len(present) == 1:
        prob[:, present[0]] = 1.0
        return prob, True
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=c, max_iter=max_iter)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(scaler.transform(x), targets)
    prob[:, model.classes_] = model.predict_proba(scaler.transform(x_new))
    return prob, not any(issubclass(one.category, ConvergenceWarning) for one in said)
