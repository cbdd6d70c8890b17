"""One use of labels: what a protocol is given and gives back, and how inner folds choose.

Shapes: n labelled scans, m test scans, K classes. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

# A vote of nought costs 6.9 nats instead of infinity, so that one surprise does not decide between
# candidates.
FLOOR = 1e-3
# Probabilities that vary by less over all test scans say nothing.
CONSTANT = 1e-6

C = TypeVar("C")
Predict = Callable[[Any, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """Labelled scans of one budget and draw, and the scans to predict, without their targets."""

    labelled: NDArray[np.int64]
    """[n] positions among the fold's scans."""
    targets: NDArray[np.int64]
    """[n] class indices."""
    inner: NDArray[np.int64]
    """[n] inner fold, or -1."""
    test: NDArray[np.int64]
    """[m] positions among the fold's scans."""
    n_classes: int
    """K, absent classes included."""
    key: int = 0
    """Of the random numbers: (base seed, seed, fold, draw)."""

    @property
    def inner_folds(self) -> list[int]:
        """Inner folds that can serve for choices; empty where there are fewer than two."""
        found = sorted({int(fold) for fold in self.inner if fold >= 0})
        return found if len(found) > 1 else []

    def split(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(training, held out) indices into the n labelled scans for one inner fold."""
        return np.flatnonzero(self.inner != fold), np.flatnonzero(self.inner == fold)

    def frequencies(self, among: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """[K] share of each class among the labelled scans (or some of them)."""
        targets = self.targets if among is None else self.targets[among]
        return np.bincount(targets, minlength=self.n_classes) / len(targets)


@dataclass
class Outcome:
    """What a protocol made of a task."""

    test_prob: NDArray[np.float64]
    """[m, K], rows sum to 1."""
    val_prob: NDArray[np.float64] | None = None
    """[n, K] inner out-of-fold predictions with what was chosen; NaN where never held out."""
    choices: dict[str, Any] = field(default_factory=dict)
    """What was chosen, and by what."""
    flags: list[str] = field(default_factory=list)
    """Short words for the table."""
    test_embeddings: NDArray[np.float16] | None = None
    """[m, E], where the protocol has trained an encoder of its own."""


@dataclass(frozen=True)
class Choice(Generic[C]):
    """The candidate with the smallest inner loss."""

    value: C
    loss: float
    val_prob: NDArray[np.float64]


def choose(task: Task, candidates: Sequence[C], predict: Predict) -> Choice[C] | None:
    """The candidate with the smallest inner out-of-fold log-loss; None without inner folds.

    `candidates` stand from the simplest model on: of equal ones the first is taken.
    `predict(candidate, train, held)` fits on the labelled scans `train` and gives [len(held), K].
    Log-loss, not AUROC: a dozen patients leave two or three per inner fold, where a ranking has too
    few steps to tell candidates apart.
    """
    if not task.inner_folds:
        return None
    best: Choice[C] | None = None
    for candidate in candidates:
        prob = np.full((len(task.targets), task.n_classes), np.nan)
        for fold in task.inner_folds:
            train, held = task.split(fold)
            prob[held] = predict(candidate, train, held)
        loss = log_loss(prob, task.targets)
        if best is None or loss < best.loss - 1e-9:
            best = Choice(candidate, loss, prob)
    return best


def log_loss(prob: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Mean -log of the true class's probability, floored at `FLOOR`; rows of NaN are left out."""
    given = prob[np.arange(len(targets)), targets]
    given = given[~np.isnan(given)]
    return float(np.log(1 / np.maximum(given, FLOOR)).mean())


def common_flags(task: Task, test_prob: NDArray[np.float64]) -> list[str]:
    """Flags that any protocol can earn: `class-missing`, `constant-predictor`."""
    flags = []
    if (task.frequencies() == 0).any():
        flags.append("class-missing")
    if len(test_prob) > 1 and np.ptp(test_prob, axis=0).max() < CONSTANT:
        flags.append("constant-predictor")
    return flags
