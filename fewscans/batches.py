"""Batches of an epoch of pretraining, for pretraining and for whoever has to match its number of steps."""

from __future__ import annotations


def epoch_batches(n_scans: int, batch_size: int, ranks: int = 1) -> tuple[int, int]:
    """(steps in an epoch, scans in a step): equal batches as near to `batch_size` as an epoch over `n_scans` allows.

    Fewer scans than there are steps are left out of an epoch. With a fixed batch and the rest dropped, folds of 250 and
    260 scans would train 1 and 2 steps an epoch at a batch of 128, and the first would see half of its scans.
    Where `ranks` processes share a batch it is a multiple of their number, and up to ``ranks - 1`` more scans of each
    step are left out. No scan is left where there are fewer than ranks.
    """
    steps = max(1, min(round(n_scans / batch_size), n_scans // 2))
    batch = n_scans // steps
    return steps, batch - batch % ranks
