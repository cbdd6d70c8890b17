"""Batches of an epoch of pretraining, for pretraining and for whoever has to match its number of steps."""

from __future__ import annotations

# Of a pretraining whose settings say neither `epochs` nor `steps`.
EPOCHS, LEAST_STEPS = 100, 1000


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


def training_steps(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    """Steps of a pretraining: `steps`, or those of `epochs` epochs of `per_epoch` steps, or what follows from the data.

    That is 100 epochs, and 1,000 steps at least. Few scans have few steps in an epoch, and a network needs steps: of 60
    scans in one batch, 100 epochs are 100 steps.
    """
    if steps is not None:
        return steps
    if epochs is not None:
        return epochs * per_epoch
    return max(EPOCHS * per_epoch, LEAST_STEPS)
