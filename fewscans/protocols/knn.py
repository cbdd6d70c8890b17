"""k nearest neighbours by cosine in standardised features; k chosen by inner folds.

A neighbour votes with exp(similarity / temperature), as in Wu et al. 2018 (section 3.4), the
protocol that DINO and others report.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from fewscans.config.models import KnnSettings
from fewscans.protocols.task import Outcome, Task, choose, common_flags


def run(task: Task, settings: KnnSettings, source: Any) -> Outcome:
    """Probabilities by weighted votes.

    `source.features`: [N, E], a row per scan of the fold. k is at most the number of labelled
    scans. Flag: `no-inner-validation` where k is the default.
    """
    features = np.asarray(source.features, dtype=np.float64)
    x, n = features[task.labelled], len(task.labelled)

    def predict(k: int, train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        return vote(x[train], task.targets[train], x[held], k, settings.temperature, task.n_classes)

    # The largest k is the smoothest model, so it wins among equals.
    candidates = sorted({min(k, n) for k in settings.k}, reverse=True)
    chosen = choose(task, candidates, predict)
    k = min(settings.default_k, n) if chosen is None else chosen.value
    test_prob = vote(x, task.targets, features[task.test], k, settings.temperature, task.n_classes)
    flags = common_flags(task, test_prob)
    if chosen is None:
        return Outcome(test_prob, None, {"k": k, "by": "default"}, [*flags, "no-inner-validation"])
    choices = {"k": k, "by": "inner-folds", "inner_loss": round(chosen.loss, 6)}
    return Outcome(test_prob, chosen.val_prob, choices, flags)


def vote(
    x: NDArray[np.float64],
    targets: NDArray[np.int64],
    x_new: NDArray[np.float64],
    k: int,
    temperature: float,
    n_classes: int,
) -> NDArray[np.float64]:
    """[m, K] shares of votes of the k nearest of `x` [n, E]; of equally near ones the first."""
    scaler = StandardScaler().fit(x)
    similarity = _unit(scaler.transform(x_new)) @ _unit(scaler.transform(x)).T  # [m, n]
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(x))]
    near = np.take_along_axis(similarity, nearest, axis=1)
    # Relative to the nearest: the same shares, and a small temperature does not overflow.
    weight = np.exp((near - near[:, :1]) / temperature)
    votes = np.zeros((len(x_new), n_classes))
    rows = np.repeat(np.arange(len(x_new)), nearest.shape[1])
    np.add.at(votes, (rows, targets[nearest].ravel()), weight.ravel())
    return votes / votes.sum(axis=1, keepdims=True)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
