"""Class frequencies of the labelled scans, whatever the image: the score of learning nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewscans.protocols.task import Outcome, Task, common_flags


def run(task: Task, settings: Any = None, source: Any = None) -> Outcome:
    """The same probabilities for every test scan; no image, no setting."""
    test_prob = np.tile(task.frequencies(), (len(task.test), 1))
    val_prob = None
    if task.inner_folds:
        val_prob = np.full((len(task.targets), task.n_classes), np.nan)
        for fold in task.inner_folds:
            train, held = task.split(fold)
            val_prob[held] = task.frequencies(train)
    return Outcome(test_prob, val_prob, {}, common_flags(task, test_prob))
